"""A configuration as it counts: what the file says and the defaults of what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from ..errors import ConfigError
from .decode import examine
from .faults import did_you_mean
from .places import Place, leaves, parse_place, spell, value_at
from .references import has_reference
from .yaml_format import parse_yaml


def with_defaults(values: Mapping[str, Any] | None, type_: Any) -> dict[str, Any]:
    """The values of a file with all defaults of the type that they are meant for."""
    struct = _struct(type_)
    if struct is None:
        return dict(values or {})
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    known = {name: _member(values or {}, name, field) for name, field in fields.items()}
    others = {key: value for key, value in (values or {}).items() if key not in fields}
    return {name: value for name, value in known.items() if value is not msgspec.NODEFAULT} | others


def type_at(type_: Any, place: Place) -> Any:
    """The type of the value at a place of a type; None where that is not known."""
    for part in place:
        kind = _unannotated(type_)
        if _struct(kind) is not None:
            fields = {field.encode_name: field.type for field in msgspec.structs.fields(_struct(kind))}
            type_ = fields.get(str(part))
        elif get_origin(kind) is dict:
            type_ = get_args(kind)[1]
        elif get_origin(kind) in (list, tuple) and isinstance(part, int):
            type_ = get_args(kind)[0]
        else:
            return None
    return type_


def read_value(text: str, type_: Any) -> Any:
    """What somebody means who types a value for a place of this type.

    Written as in YAML: `9700`, `true`, `[a, b]`, `null`; where only a text fits it needs no quotes.
    """
    try:
        value = parse_yaml(text, "The value")
    except ConfigError:
        return text
    if isinstance(value, str) and not text.lstrip().startswith(("'", '"', "|", ">")):
        return text.strip()
    if type_ is None or isinstance(value, str):
        return value
    fits_as_text = has_reference(text) or not examine(text, type_)[1]
    return text if examine(value, type_)[1] and fits_as_text else value


def find_value(values: Any, path: str) -> Any:
    """What is at a path. Raises ConfigError that names the nearest one that exists."""
    place = parse_place(path)
    try:
        return value_at(values, place)
    except KeyError:
        known = {spell(found[:depth]) for found, _ in leaves(values) for depth in range(1, len(found) + 1)}
        raise ConfigError(
            f"There is no {spell(place)}{did_you_mean(spell(place), known) or '.'}",
            hint="`lollms config show` shows what there is.",
        ) from None


def _member(values: Mapping[str, Any], name: str, field: msgspec.structs.FieldInfo) -> Any:
    given = values.get(name, msgspec.NODEFAULT)
    if _struct(field.type) is not None and (
        given is None or given is msgspec.NODEFAULT or isinstance(given, Mapping)
    ):
        if _is_nullable(field.type) and not isinstance(given, Mapping):
            return None
        return with_defaults(given if isinstance(given, Mapping) else None, field.type)
    if given is not msgspec.NODEFAULT and not (given is None and not _is_nullable(field.type)):
        return given
    return _default(field)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return _as_in_a_file(field.default_factory())
    return field.default if field.required else _as_in_a_file(field.default)


def _as_in_a_file(value: Any) -> Any:
    """The value as reading a file would give it: lists for tuples, texts for paths."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=str))


def _struct(type_: Any) -> Any:
    """The Struct that a type is, or is besides null; None if it is none."""
    structs = [
        kind for kind in _members(type_) if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    ]
    return structs[0] if len(structs) == 1 else None


def _is_nullable(type_: Any) -> bool:
    return type(None) in set(_members(type_)) or _unannotated(type_) is Any


def _members(type_: Any) -> Iterator[Any]:
    kind = _unannotated(type_)
    if get_origin(kind) is Union or type(kind).__name__ == "UnionType":
        for member in get_args(kind):
            yield from _members(member)
    else:
        yield kind


def _unannotated(type_: Any) -> Any:
    return get_args(type_)[0] if get_origin(type_) is Annotated else type_
