"""What can go wrong with a request, as values: append them to `FakeServer.faults`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to the first request whose path contains `path`; then it is used up."""

    path: str = ""
    status: int | None = None
    """Answer with this status, `headers` and `body` instead of the real answer."""
    headers: Mapping[str, str] = {}
    body: bytes = b""
    delay: float = 0.0
    """Seconds before the first byte; `inf`: never."""
    after: int = 0
    """How many frames of the answer pass before what follows."""
    insert: bytes = b""
    """Sent as it is."""
    ending: Literal["go on", "drop", "stall", "end"] = "go on"
    """After that: the rest of the answer, a broken connection, silence until the client leaves, or a clean end."""
    piece: int | None = None
    """Send the answer in pieces of this many bytes, wherever that cuts."""


def refusal(status: int, body: bytes = b"", path: str = "", **headers: str) -> Fault:
    """An HTTP error; `retry_after="1"` becomes the header `retry-after: 1`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(status=status, body=body, path=path, headers=named)


def silence(path: str = "") -> Fault:
    """Not a single byte, until the client leaves."""
    return Fault(delay=float("inf"), path=path)


def slow(seconds: float, path: str = "") -> Fault:
    """The first byte comes late."""
    return Fault(delay=seconds, path=path)


def stalled(after: int, path: str = "") -> Fault:
    """Silence after some frames, until the client leaves."""
    return Fault(after=after, ending="stall", path=path)


def dropped(after: int, path: str = "") -> Fault:
    """The connection breaks after some frames."""
    return Fault(after=after, ending="drop", path=path)


def garbage(after: int, insert: bytes, path: str = "", ending: Literal["go on", "end"] = "end") -> Fault:
    """Bytes of your choice after some frames: half a character, a malformed chunk, an error of the protocol."""
    return Fault(after=after, insert=insert, ending=ending, path=path)
