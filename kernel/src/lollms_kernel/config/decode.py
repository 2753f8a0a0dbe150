"""Plain values into typed settings, with every mistake reported at once: where, what, what is allowed instead."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from ..errors import ConfigError
from .describe import describe, kind_of, shown
from .secrets import may_hold_secret

T = TypeVar("T")

Place = tuple[str | int, ...]

MAX_LINES = 100
"""Lines of one error; a file with more mistakes is no configuration."""

HINT = "Correct what is named here; docs/configuration.md explains every key."

_LISTS: tuple[Any, ...] = (list, tuple, set, frozenset)
_UNIONS: tuple[Any, ...] = (Union, types.UnionType)
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_LEFT_OUT = object()


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong, and where; `text` never holds a secret."""

    path: Place
    text: str

    def __str__(self) -> str:
        """The line that an error shows."""
        return f"{dotted(self.path)}: {self.text}" if self.path else self.text


def convert(raw: Any, type_: type[T], where: str) -> T:
    """`raw` as a `type_`, strictly; null stands for an empty mapping.

    `where` says in errors what was read, usually the file. Raises one ConfigError that lists every mistake.
    """
    cleaned, faults = examine(raw, type_)
    if faults:
        raise config_error(where, faults)
    return _converted(cleaned, type_)


def examine(raw: Any, type_: Any) -> tuple[Any, list[Fault]]:
    """`raw` without its wrong parts, and what is wrong with them."""
    examination = _Examination(type_)
    cleaned = examination.value(raw, type_, ())
    return (None if cleaned is _LEFT_OUT else cleaned), examination.faults


def config_error(where: str, faults: Sequence[Fault], hint: str = HINT) -> ConfigError:
    """One readable error for all that is wrong with one file."""
    if len(faults) == 1:
        return ConfigError(f"{where}: {faults[0]}", hint=hint)
    lines = [f"{where}: {len(faults)} problems:", *(f"  {fault}" for fault in faults[:MAX_LINES])]
    if len(faults) > MAX_LINES:
        lines.append(f"  and {len(faults) - MAX_LINES} more.")
    return ConfigError("\n".join(lines), hint=hint)


def dotted(path: Iterable[str | int]) -> str:
    """A path as users write it, e.g. `security.allowed_api_keys[2]`."""
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


class _Examination:
    """A walk down a value beside its type. What is left when the walk returns converts without error, but for
    required keys that are missing."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.faults: list[Fault] = []

    def value(self, raw: Any, type_: Any, path: Place) -> Any:
        before = len(self.faults)
        cleaned = self._parts(raw, type_, path)
        if len(self.faults) > before:
            return cleaned
        try:
            _converted(cleaned, type_)
        except msgspec.ValidationError:
            self.faults.append(Fault(path, _mismatch(raw, type_)))
            return _LEFT_OUT
        return cleaned

    def _parts(self, raw: Any, type_: Any, path: Place) -> Any:
        """Look into containers; anything else is left for msgspec to judge as a whole."""
        kind = _unannotated(type_)
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in _UNIONS:
            return self._union(raw, arguments, path)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self._struct(raw, kind, path) if raw is None or isinstance(raw, Mapping) else raw
        if kind is dict or origin is dict:
            key_type, value_type = arguments or (Any, Any)
            if raw is None:
                return {}
            return self._mapping(raw, key_type, value_type, path) if isinstance(raw, Mapping) else raw
        uniform = origin in _LISTS and (origin is not tuple or arguments[-1:] == (...,))
        if uniform and isinstance(raw, list | tuple):
            items = [self.value(item, arguments[0], (*path, i)) for i, item in enumerate(raw)]
            return [item for item in items if item is not _LEFT_OUT]
        return raw

    def _struct(
        self, raw: Mapping[Any, Any] | None, cls: type[msgspec.Struct], path: Place
    ) -> dict[str, Any]:
        fields = {field.encode_name: field for field in msgspec.structs.fields(cls)}
        settings = cls.__struct_config__
        cleaned: dict[str, Any] = {}
        for key, item in (raw or {}).items():
            if key in fields:
                result = self.value(item, fields[key].type, (*path, key))
                if result is not _LEFT_OUT:
                    cleaned[key] = result
            elif settings.tag is not None and key == settings.tag_field:
                cleaned[key] = item
            elif settings.forbid_unknown_fields:
                self.faults.append(Fault((*path, str(key)), self._unknown(str(key), list(fields))))
        for name, field in fields.items():
            if field.required and name not in (raw or {}):
                self.faults.append(Fault((*path, name), f"is missing, must be {describe(field.type)}."))
        return cleaned

    def _mapping(self, raw: Mapping[Any, Any], key_type: Any, value_type: Any, path: Place) -> dict[Any, Any]:
        cleaned = {}
        for key, item in raw.items():
            here = (*path, str(key))
            try:
                msgspec.convert(key, key_type)
            except msgspec.ValidationError:
                self.faults.append(Fault(here, f"is not a good key, must be {describe(key_type)}."))
                continue
            result = self.value(item, value_type, here)
            if result is not _LEFT_OUT:
                cleaned[key] = result
        return cleaned

    def _union(self, raw: Any, members: tuple[Any, ...], path: Place) -> Any:
        if raw is None and type(None) in members:
            return None
        members = tuple(member for member in members if member is not type(None))
        if len(members) == 1:
            return self._parts(raw, members[0], path)
        for member in members:
            attempt = _Examination(self.root)
            cleaned = attempt.value(raw, member, path)
            if not attempt.faults:
                return cleaned
        return raw

    def _unknown(self, key: str, known: Sequence[str]) -> str:
        """Name the nearest known key; one that exists elsewhere is nearest of all."""
        places = [place for place in _places(self.root) if place.rpartition(".")[2] == key]
        guess = f"; did you mean `{places[0]}`?" if places else did_you_mean(key, known)
        return f"unknown key{guess or '; known here: ' + (', '.join(sorted(known)) or 'none') + '.'}"


def _places(root: Any) -> Iterator[str]:
    """The dotted path of each key of a Struct's sections."""
    if not (isinstance(root, type) and issubclass(root, msgspec.Struct)):
        return
    for section in msgspec.structs.fields(root):
        kind = _unannotated(section.type)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            for field in msgspec.structs.fields(kind):
                yield f"{section.encode_name}.{field.encode_name}"


def _converted(value: Any, type_: type[T]) -> T:
    return msgspec.convert(value, type_, dec_hook=_from_plain)


def _from_plain(type_: type, value: Any) -> Any:
    """The types that msgspec does not know: paths, which settings may use."""
    if issubclass(type_, PurePath) and isinstance(value, str):
        return type_(value)
    raise TypeError


def _unannotated(type_: Any) -> Any:
    return get_args(type_)[0] if get_origin(type_) is Annotated else type_


def _mismatch(raw: Any, type_: Any) -> str:
    hidden = isinstance(raw, str | int | float) and may_hold_secret(type_)
    has = f"{kind_of(raw)} (not shown)" if hidden else shown(raw)
    return f"is {has}, must be {describe(type_)}{_cure(raw, type_)}"


def _cure(raw: Any, type_: Any) -> str:
    """How the value could be meant, as the end of a sentence."""
    kind = _unannotated(type_)
    union = get_origin(kind) in _UNIONS
    wanted = [_unannotated(member) for member in get_args(kind)] if union else [kind]
    if isinstance(raw, bool | int | float) and str in wanted:
        return ": put it in quotes."
    if isinstance(raw, str) and get_origin(kind) is Literal:
        return did_you_mean(raw, (str(word) for word in get_args(kind))) or "."
    if isinstance(raw, str) and (int in wanted or float in wanted) and _NUMBER.fullmatch(raw):
        return ": remove the quotes."
    return "."
