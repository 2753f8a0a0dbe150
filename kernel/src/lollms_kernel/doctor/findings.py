"""What the doctor says of one thing."""

from __future__ import annotations

from typing import Literal

import msgspec

Level = Literal["ok", "warning", "error"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    `error`: something that is wanted does not work; `warning`: it works, but not as one may expect, or something
    optional is missing. Both name the cure.
    """

    level: Level
    title: str
    text: str
    cure: str | None = None
