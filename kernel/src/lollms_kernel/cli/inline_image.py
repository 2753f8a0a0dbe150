"""Pictures in the terminal, for terminals that can show them: kitty's protocol and iTerm2's."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from typing import Literal

Protocol = Literal["kitty", "iterm"]

ROWS = 10
"""Lines of text that a picture takes."""
_PIECE = 4096
_PNG = b"\x89PNG\r\n\x1a\n"


def protocol_of(environ: Mapping[str, str] = os.environ) -> Protocol | None:
    """How this terminal wants pictures; None if it shows none, or stands behind tmux or screen."""
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if "TMUX" in environ or term.startswith(("screen", "tmux", "dumb")):
        return None
    if term in ("xterm-kitty", "xterm-ghostty") or "KITTY_WINDOW_ID" in environ or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return None


def in_line(data: bytes, protocol: Protocol | None) -> str | None:
    """What to print to show a picture `ROWS` lines high; None where the terminal cannot show this one."""
    if protocol == "iterm":
        text = base64.b64encode(data).decode()
        return f"\x1b]1337;File=inline=1;size={len(data)};height={ROWS};preserveAspectRatio=1:{text}\x07"
    if protocol == "kitty" and data.startswith(_PNG):  # it takes no other format
        return "".join(_kitty(base64.b64encode(data).decode()))
    return None


def _kitty(text: str) -> Iterator[str]:
    """The picture in pieces of 4096 characters; all but the last say that more is to come."""
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    for number, piece in enumerate(pieces):
        more = int(number < len(pieces) - 1)
        head = f"a=T,f=100,r={ROWS},q=2,m={more}" if number == 0 else f"m={more}"
        yield f"\x1b_G{head};{piece}\x1b\\"
