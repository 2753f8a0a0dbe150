"""Plain values into typed settings, with every mistake reported at once: where, what, what is allowed instead."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin

import msgspec

from .describe import describe, kind_of, shown
from .faults import Fault, config_error, did_you_mean
from .places import Place
from .resolve import Concealed, Unknown, revealed
from .secrets import may_hold_secret

T = TypeVar("T")

_LISTS: tuple[Any, ...] = (list, tuple, set, frozenset)
_UNIONS: tuple[Any, ...] = (Union, types.UnionType)
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_LEFT_OUT = object()


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
    return (None if cleaned is _LEFT_OUT else revealed(cleaned)), examination.faults


class _Examination:
    """A walk down a value beside its type. What is left when the walk returns converts without error."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.faults: list[Fault] = []

    def value(self, raw: Any, type_: Any, path: Place) -> Any:
        if isinstance(raw, Unknown):
            return _LEFT_OUT
        before = len(self.faults)
        cleaned = self._parts(raw, type_, path)
        if len(self.faults) > before:
            return cleaned if _converts(cleaned, type_) else _LEFT_OUT
        if not _converts(cleaned, type_):
            if isinstance(raw, Concealed) and (read := _from_text(raw, type_)) is not _LEFT_OUT:
                return read
            self.faults.append(Fault(path, _mismatch(raw, type_)))
            return _LEFT_OUT
        return cleaned

    def _parts(self, raw: Any, type_: Any, path: Place) -> Any:
        """Look into containers; anything else is left for msgspec to judge as a whole."""
        kind = _unannotated(type_)
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in _UNIONS:
            return self._union(raw, arguments, path)
        if _is_struct(kind):
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
                text = self._unknown(str(key), list(fields))
                self.faults.append(Fault((*path, str(key)), text, unknown=True))
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
        if isinstance(raw, Mapping):
            structs = [member for member in members if _is_struct(member)]
            members = tuple(structs) if len(structs) == 1 else members
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


def _converts(value: Any, type_: Any) -> bool:
    try:
        _converted(value, type_)
    except msgspec.ValidationError:
        return False
    return True


def _from_plain(type_: type, value: Any) -> Any:
    """The types that msgspec does not know: paths, which settings may use."""
    if issubclass(type_, PurePath) and isinstance(value, str):
        return type_(value)
    raise TypeError


def _from_text(text: str, type_: Any) -> Any:
    """The value that a text stands for where no text may be, e.g. a number."""
    try:
        return msgspec.to_builtins(msgspec.convert(str(text), type_, strict=False))
    except msgspec.ValidationError:
        return _LEFT_OUT


def _is_struct(kind: Any) -> TypeGuard[type[msgspec.Struct]]:
    kind = _unannotated(kind)
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _unannotated(type_: Any) -> Any:
    return get_args(type_)[0] if get_origin(type_) is Annotated else type_


def _mismatch(raw: Any, type_: Any) -> str:
    if isinstance(raw, Concealed):
        return f"is {raw.shown}, must be {describe(type_)}."
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
