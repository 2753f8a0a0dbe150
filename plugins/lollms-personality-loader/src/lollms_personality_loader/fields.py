"""The values of one personality file, read tolerantly.

Personalities were written by hundreds of people for three programs: what can be understood is, what cannot is
left out and said in `problems`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Range(msgspec.Struct, frozen=True):
    """The numbers that a parameter may have, both ends included."""

    low: float
    high: float
    whole: bool = False


_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0", ""})


class Fields:
    """What a personality file holds, by key; `problems` says which values could not be used."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = dict(raw)
        self.problems: list[str] = []

    def overlaid(self, other: Fields) -> Fields:
        """These values, with those of `other` in place of the ones that it has."""
        present = {key: value for key, value in other._raw.items() if value is not None}
        return Fields({**self._raw, **present})

    def set(self, key: str, text: str) -> None:
        """Put a text in the place of what is there."""
        self._raw[key] = text

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self._raw.get(key) is not None

    def peek(self, key: str) -> str:
        """The text or texts of a value, without a word about what is none."""
        match self._raw.get(key):
            case str(value):
                return value
            case list(items):
                return "\n".join(item for item in items if isinstance(item, str))
        return ""

    def text(self, key: str, default: str) -> str:
        """A text; a list of texts is joined by line breaks."""
        match self._raw.get(key):
            case None:
                return default
            case str(value):
                return value
            case list(items) if all(isinstance(item, str) for item in items):
                return "\n".join(items)
        self.problems.append(f"`{key}` must be text; it is left out.")
        return default

    def first(self, key: str, default: str) -> str:
        """A text; of a list of texts its first."""
        value = self._raw.get(key)
        if isinstance(value, list):
            return next(iter(self.texts(key)), default)
        return self.text(key, default)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts without the empty ones; a single text is a list of one."""
        match self._raw.get(key):
            case None:
                return ()
            case str(value):
                return (value,) if value else ()
            case list(items):
                if not all(isinstance(item, str | None) for item in items):
                    self.problems.append(f"`{key}` must be a list of texts; what is not text is left out.")
                return tuple(item for item in items if isinstance(item, str) and item)
        self.problems.append(f"`{key}` must be a list of texts; it is left out.")
        return ()

    def flag(self, key: str) -> bool:
        """Whether it is true; scalars are read as the text that was written."""
        value = self._raw.get(key)
        if value is None:
            return False
        word = value.strip().lower() if isinstance(value, str) else ""
        if word not in _TRUE | _FALSE:
            self.problems.append(f"`{key}` must be true or false; it is taken for false.")
        return word in _TRUE

    def number(self, key: str, allowed: Range) -> float | None:
        """A number within its range, None where there is none; whole numbers are ints."""
        value = self._raw.get(key)
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")  # which no range holds
        if allowed.low <= number <= allowed.high and (not allowed.whole or number.is_integer()):
            return int(number) if allowed.whole else number
        kind = "a whole number" if allowed.whole else "a number"
        self.problems.append(
            f"`{key}` must be {kind} from {allowed.low:g} to {allowed.high:g}; it is left out."
        )
        return None
