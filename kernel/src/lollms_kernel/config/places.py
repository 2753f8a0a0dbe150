"""Places inside a configuration: dotted paths as users write them, and values at those places."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import ConfigError
from .describe import shown

Place = tuple[str | int, ...]

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_PART = re.compile(
    r"(?P<dot>\.)?(?:(?P<plain>[A-Za-z0-9_-]+)|(?P<quoted>\"(?:[^\"\\]|\\.)*\"))|\[(?P<index>\d{1,6})\]"
)


def parse_place(text: str) -> Place:
    """The place that a path such as `security.allowed_api_keys[0]` or `bindings_map."a.b"` names.

    A name that is not of letters, digits, `_` and `-` is quoted as in JSON. Raises ConfigError.
    """
    place: list[str | int] = []
    position = 0
    while position < len(text):
        match = _PART.match(text, position)
        if match is None or (match["index"] is None and bool(match["dot"]) != bool(place)):
            break
        position = match.end()
        if match["index"] is not None:
            place.append(int(match["index"]))
        else:
            place.append(match["plain"] or _unquoted(match["quoted"], text))
    if position < len(text) or not place or isinstance(place[0], int):
        raise _no_path(text)
    return tuple(place)


def spell(place: Place) -> str:
    """The path that `parse_place` reads as this place, in full."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _PLAIN.fullmatch(part) else json.dumps(part)
            text += f".{name}" if text else name
    return text


def value_at(values: Any, place: Place) -> Any:
    """What is at a place. Raises KeyError where nothing is."""
    for part in place:
        if isinstance(part, int):
            if not isinstance(values, list) or part >= len(values):
                raise KeyError(spell(place))
            values = values[part]
        elif isinstance(values, Mapping) and part in values:
            values = values[part]
        else:
            raise KeyError(spell(place))
    return values


def leaves(values: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value that is no mapping and no list, and every empty one of these, with its place."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from leaves(value, (*place, str(key)))
    elif isinstance(values, list | tuple) and values:
        for index, value in enumerate(values):
            yield from leaves(value, (*place, index))
    else:
        yield place, values


def put(values: dict[str, Any], place: Place, value: Any) -> None:
    """Set what is at a place; sections on the way are created, also where null stands for one.

    Raises ConfigError where something else than a section is in the way.
    """
    holder: Any = values
    for depth, part in enumerate(place[:-1]):
        if isinstance(part, str) and isinstance(holder, dict) and holder.get(part) is None:
            # null stands for an empty section
            holder[part] = empty_for(place[depth + 1])
        elif isinstance(part, int) and isinstance(holder, list) and part == len(holder):
            holder.append(empty_for(place[depth + 1]))
        try:
            holder = value_at(holder, (part,))
        except KeyError:
            raise _in_the_way(place, depth) from None
        if not isinstance(holder, dict | list):
            raise _in_the_way(place, depth + 1)
    last = place[-1]
    if isinstance(last, str) and isinstance(holder, dict):
        holder[last] = value
    elif isinstance(last, int) and isinstance(holder, list) and last <= len(holder):
        holder[last : last + 1] = [value]
    else:
        raise _in_the_way(place, len(place) - 1)


def empty_for(part: str | int) -> dict[str, Any] | list[Any]:
    """The empty section or list that a part of a place belongs into."""
    return [] if isinstance(part, int) else {}


def drop(values: dict[str, Any], place: Place) -> None:
    """Take away what is at a place. Raises KeyError where nothing is."""
    holder = value_at(values, place[:-1])
    value_at(holder, place[-1:])
    del holder[place[-1]]


def _in_the_way(place: Place, depth: int) -> ConfigError:
    above = spell(place[:depth]) or "the file"
    return ConfigError(
        f"{spell(place)} cannot be set: {above} is neither a section nor a list that goes so far.",
        hint="`lollms config show` shows what there is.",
    )


def _unquoted(quoted: str, text: str) -> str:
    try:
        name = json.loads(quoted)
    except ValueError:
        raise _no_path(text) from None
    return str(name)


def _no_path(text: str) -> ConfigError:
    return ConfigError(
        f"{shown(text)} is no path of a key.",
        hint='Write it as in server.port, security.allowed_api_keys[0] or bindings_map."my.model".',
    )
