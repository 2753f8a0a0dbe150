"""TOML files into plain values and back; edits keep comments and layout.

TOML has no null. A key that may be null is left out where null is its default anyway; elsewhere the text `${null}`
stands for it.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from ..errors import ConfigError
from .files import decoded
from .places import Place, empty_for
from .plain import HINT, MAX_DEPTH, bounded

NULL = "${null}"

_LONG_PATH = re.compile(r"(?:\.\s*+(?:[\w-]++|\"[^\"\n]*+\"|'[^'\n]*+')\s*+){32}")
"""A key with more parts than the levels that are allowed; the parser takes very long for long ones."""
_PLACE = re.compile(r"\(at (?:line (\d+), column (\d+)|end of document)\)")


def parse_toml(data: bytes, where: str) -> Any:
    """The values of a TOML file. Raises ConfigError with line and column."""
    text = decoded(data, where)
    if _LONG_PATH.search(text):
        raise ConfigError(f"{where}: nested deeper than {MAX_DEPTH} levels.", hint=HINT)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _fault(str(error), where) from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply.", hint=HINT) from None
    except ValueError:  # a number or date that only looks like one
        raise ConfigError(f"{where}: a number or date that is none.", hint=HINT) from None
    return _with_null(bounded(found, where))


def write_toml(values: dict[str, Any]) -> bytes:
    """The text of a new TOML file."""
    import tomli_w

    return tomli_w.dumps(_without_null(values)).encode()


class TomlEditor:
    """A TOML text that changes value by value and keeps all else."""

    def __init__(self, data: bytes, where: str) -> None:
        import tomlkit
        from tomlkit.exceptions import TOMLKitError

        try:
            self._document: Any = tomlkit.parse(decoded(data, where))
        except TOMLKitError as error:
            raise ConfigError(f"{where} cannot be edited: {type(error).__name__}.", hint=HINT) from None

    def put(self, place: Place, value: Any) -> None:
        """Set the value at a place; sections on the way are created."""
        holder: Any = self._document
        for depth, part in enumerate(place[:-1]):
            if part == len(holder) if isinstance(part, int) else holder.get(part, NULL) == NULL:
                _set(holder, part, empty_for(place[depth + 1]))
            holder = holder[part]
        _set(holder, place[-1], _without_null(value))

    def drop(self, place: Place) -> None:
        """Take the value at a place away."""
        holder: Any = self._document
        for part in place[:-1]:
            holder = holder[part]
        del holder[place[-1]]

    def text(self) -> str:
        """The whole text as it is now."""
        import tomlkit

        return tomlkit.dumps(self._document)


def _set(holder: Any, part: str | int, value: Any) -> None:
    if isinstance(part, int) and part == len(holder):
        holder.append(value)
    else:
        holder[part] = value


def _with_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_null(item) for item in value]
    return None if value == NULL else value


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    return NULL if value is None else value


def _fault(text: str, where: str) -> ConfigError:
    """The parser's error, which names keys and single characters but no values."""
    found = _PLACE.search(text)
    reason = (text[: found.start()] if found else text).strip().rstrip(".")
    place = f", line {found[1]}, column {found[2]}" if found and found[1] else ", at its end" if found else ""
    return ConfigError(f"{where}{place}: not valid TOML: {reason}.", hint=HINT)
