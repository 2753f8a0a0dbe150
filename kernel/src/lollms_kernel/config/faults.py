"""What is wrong with a file, place by place, and the one error that tells it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import msgspec

from ..errors import ConfigError
from .describe import shown
from .places import Place

MAX_LINES = 100
"""Lines of one error; a file with more mistakes is no configuration."""

HINT = "Correct what is named here; docs/configuration.md explains every key."


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong, and where; `text` never holds a secret."""

    path: Place
    text: str
    unknown: bool = False
    """Whether it is a key that the schema does not have."""

    @property
    def place(self) -> str:
        """The path as errors show it."""
        return dotted(self.path)

    def __str__(self) -> str:
        """The line that an error shows."""
        return f"{self.place}: {self.text}" if self.path else self.text


def config_error(where: str, faults: Sequence[Fault], hint: str = HINT) -> ConfigError:
    """One readable error for all that is wrong with one file."""
    if len(faults) == 1:
        return ConfigError(f"{where}: {faults[0]}", hint=hint)
    lines = [f"{where}: {len(faults)} problems:", *(f"  {fault}" for fault in faults[:MAX_LINES])]
    if len(faults) > MAX_LINES:
        lines.append(f"  and {len(faults) - MAX_LINES} more.")
    return ConfigError("\n".join(lines), hint=hint)


def dotted(path: Iterable[str | int]) -> str:
    """A path as errors show it, on one line and not too long, e.g. `security.allowed_api_keys[2]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + _name(part)
    return text


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """ "; did you mean `port`?" for the known word that is nearest, else ""."""
    words = {word.lower(): word for word in known}
    near = get_close_matches(wrong.lower(), words, n=1)
    return f"; did you mean `{words[near[0]]}`?" if near else ""


def _name(part: str) -> str:
    return part if re.fullmatch(r"[\w-]{1,60}", part) else shown(part)
