"""The picture of a personality: a file of its folder `assets`."""

from __future__ import annotations

import os
from pathlib import Path

LOGOS = tuple(f"logo.{suffix}" for suffix in ("gif", "webp", "png", "jpg", "jpeg", "bmp"))
"""What is taken where the file names none; the first that is there."""

DEFAULT_ICON = "default.png"
"""What listings name where there is no picture."""


def find_icon(folder: Path, wanted: str) -> str | None:
    """The name of the picture in `folder/assets`: the wanted one, else the logo; None where there is neither."""
    assets = folder / "assets"
    if not os.path.isdir(assets):
        return None
    if wanted and lies_in(assets, wanted):
        return wanted
    return next((logo for logo in LOGOS if lies_in(assets, logo)), None)


def lies_in(folder: Path, name: str) -> bool:
    """Whether `name`, links followed to their end, is a file below `folder`."""
    if "\0" in name:
        return False
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return False
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
