"""Typed fields of a JSON object: `null` counts as absent, a wrong type or range is a 400 that names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lollms_kernel.errors import InvalidRequest

INT32 = 2**31 - 1
LARGEST = 2**63 - 1


def wrong(name: str, allowed: str, value: object = None) -> InvalidRequest:
    """What is said of a field that is not as it must be."""
    got = "" if value is None else f", not {_shown(value)}"
    return InvalidRequest(f"Field '{name}': must be {allowed}{got}.")


class Fields:
    """One object of a body."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw

    def __contains__(self, name: str) -> bool:
        return self.raw.get(name) is not None

    def get(self, name: str) -> Any:
        """Whatever is there; None if nothing is."""
        return self.raw.get(name)

    def integer(self, name: str, low: int = -INT32, high: int = INT32) -> int | None:
        """An integer, also written as 3.0."""
        value = self.raw.get(name)
        return None if value is None else as_integer(name, value, low, high)

    def number(self, name: str, low: float = -1e9, high: float = 1e9) -> float | None:
        """A finite number."""
        value = self.raw.get(name)
        return None if value is None else as_number(name, value, low, high)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.raw.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise wrong(name, "true or false", value)
        return value

    def text(self, name: str, longest: int = 1 << 26) -> str | None:
        """A string."""
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise wrong(name, "a string", value)
        if len(value) > longest:
            raise wrong(name, f"at most {longest} characters long")
        return value

    def texts(self, name: str, most: int = 1024, longest: int = 1 << 16) -> list[str] | None:
        """A list of strings, or a single one."""
        value = self.raw.get(name)
        if value is None:
            return None
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise wrong(name, "a string or a list of strings", value)
        if len(values) > most or any(len(item) > longest for item in values):
            raise wrong(name, f"at most {most} strings of at most {longest} characters")
        return values

    def object(self, name: str) -> dict[str, Any] | None:
        """An object."""
        value = self.raw.get(name)
        if value is None or isinstance(value, dict):
            return value
        raise wrong(name, "an object", value)

    def objects(self, name: str, most: int = 1024) -> list[dict[str, Any]] | None:
        """A list of objects."""
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise wrong(name, "a list of objects", value)
        if len(value) > most:
            raise wrong(name, f"at most {most} objects")
        return value

    def choice(self, name: str, known: tuple[str, ...]) -> str | None:
        """One of some words."""
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or value not in known:
            raise wrong(name, f"one of {', '.join(known)}", value)
        return value


def as_integer(name: str, value: object, low: int, high: int) -> int:
    """The value of a field as an integer within bounds. Raises InvalidRequest."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(name, "an integer", value)
    if not low <= value <= high:
        raise wrong(name, f"an integer from {low} to {high}", value)
    return value


def as_number(name: str, value: object, low: float, high: float) -> float:
    """The value of a field as a finite number within bounds. Raises InvalidRequest."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
        raise wrong(name, "a number", value)
    if not math.isfinite(value) or not low <= value <= high:
        raise wrong(name, f"a number from {low:g} to {high:g}", value)
    return float(value)


def _shown(value: object) -> str:
    if isinstance(value, bool | float) or value is None:
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if -LARGEST <= value <= LARGEST else "a very large integer"
    if isinstance(value, str):
        return repr(value[:60])
    return "a list" if isinstance(value, list) else "an object"
