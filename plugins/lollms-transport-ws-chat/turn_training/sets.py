"""The sets of turns written by hand: lines `+ text` or `- text`, `[what the assistant said]` before the text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from lollms_transport_ws_chat.turn_detection import Turn

HERE = Path(__file__).parent
EVALUATION = HERE / "evaluation"
DEVELOPMENT = HERE / "development"
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "zh", "ja")

_LINE = re.compile(r"([+-]) (?:\[(.+?)\] )?(.+)")


class Labelled(NamedTuple):
    """A turn with what was said before it, and whether it is complete."""

    turns: tuple[Turn, ...]
    complete: bool
    bucket: str

    @property
    def text(self) -> str:
        """How a listing shows it."""
        return " » ".join(turn.content for turn in self.turns)


def read_set(file: Path) -> list[Labelled]:
    """All turns of a file."""
    found, bucket = [], ""
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if line.startswith("# "):
            bucket = line[2:]
            continue
        match = _LINE.fullmatch(line)
        assert match, f"{file.name}:{number} is no turn: {line}"
        sign, before, text = match.groups()
        history = (Turn("assistant", before),) if before else ()
        found.append(Labelled((*history, Turn("user", text)), sign == "+", bucket))
    return found
