"""Which settings are secret, and settings without them.

Fields are secret when they are marked with `contracts.Secret`. Mappings without types have no marks; there an entry is
secret whose key reads like a secret's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import msgspec
from msgspec import inspect as mi

from .encryption import is_encrypted
from .migrations import VERSION_KEY
from .places import Place, leaves, put
from .resolve import MASK, Concealed, shown_reference

_READS_LIKE_A_SECRET = re.compile(
    r"(^|[_-])(key|keys|token|secret|password|passwd|credentials?)$", re.IGNORECASE
)
_ANY = mi.AnyType()


def is_secret(type_: Any) -> bool:
    """Whether a field of this type is marked with `contracts.Secret`, itself or what it lists or maps to."""
    return _marked(mi.type_info(type_))


def may_hold_secret(type_: Any) -> bool:
    """Whether a value meant for this type may carry a secret somewhere: marked, or in a mapping without types."""
    return _may_hold(mi.type_info(type_), set())


def redact(settings: msgspec.Struct, raw: Any = None) -> dict[str, Any]:
    """Plain values of a settings Struct without its secrets.

    `raw` is what the settings were made from: where it holds a text that is encrypted or comes from the environment,
    what may be shown of that text takes its place.
    """
    values = {
        field.encode_name: _plain(getattr(settings, field.name), mi.type_info(field.type))
        for field in msgspec.structs.fields(type(settings))
        if not is_secret(field.type)
    }
    return values if raw is None else _covered(values, raw)


def secret_places(values: Any, type_: Any) -> Iterator[tuple[Place, Any]]:
    """The places of plain values that hold secret texts or numbers, with these, for values that are meant for a type.

    `type_` None means that nothing is known of it.
    """
    yield from _secrets(values, _ANY if type_ is None else mi.type_info(type_), (), False)


def masked(values: Any, type_: Any) -> Any:
    """A copy of plain values that may be shown: secrets are `***`, bare references stay."""
    copy = {"": deepcopy(values)}
    for place, secret in secret_places(values, type_):
        put(copy, ("", *place), shown_reference(str(secret)))
    for place, value in leaves(copy[""]):
        if isinstance(value, str) and is_encrypted(value):
            put(copy, ("", *place), MASK)
    return copy[""]


def _secrets(value: Any, kind: mi.Type, place: Place, inside: bool) -> Iterator[tuple[Place, Any]]:
    inside = inside or _is_marked(kind, value)
    kind = _bare(kind, value)
    if isinstance(value, Mapping):
        for key, item, inner, hidden in _entries(value, kind):
            yield from _secrets(item, inner, (*place, key), inside or hidden)
    elif isinstance(value, list | tuple):
        inner = kind.item_type if isinstance(kind, mi.CollectionType) else _ANY
        for index, item in enumerate(value):
            yield from _secrets(item, inner, (*place, index), inside)
    elif inside and isinstance(value, str | int | float) and not isinstance(value, bool):
        yield place, value


def _entries(value: Mapping[Any, Any], kind: mi.Type) -> Iterator[tuple[str, Any, mi.Type, bool]]:
    """Key, value and type of each entry, and whether the key alone makes it a secret."""
    fields = (
        {field.encode_name: field.type for field in kind.fields} if isinstance(kind, mi.StructType) else {}
    )
    # what is misspelt beside secrets is probably one of them
    suspect = any(map(_marked, fields.values()))
    others = kind.value_type if isinstance(kind, mi.DictType) else _ANY
    for key, item in value.items():
        name = str(key)
        if name in fields:
            yield name, item, fields[name], False
        else:
            unknown = isinstance(_bare(others), mi.AnyType) and name != VERSION_KEY
            hidden = unknown and (suspect or reads_like_a_secret(name))
            yield name, item, others, hidden


def reads_like_a_secret(key: str) -> bool:
    """Whether a key of a mapping without types is the name of a secret."""
    return _READS_LIKE_A_SECRET.search(key) is not None


def _covered(value: Any, raw: Any) -> Any:
    if isinstance(raw, Concealed):
        return raw.shown
    if isinstance(value, dict) and isinstance(raw, Mapping):
        return {key: _covered(item, raw.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(raw, list) and len(raw) == len(value):
        return [_covered(item, source) for item, source in zip(value, raw, strict=True)]
    return value


def _plain(value: Any, kind: mi.Type) -> Any:
    kind = _bare(kind)
    if isinstance(value, msgspec.Struct):
        return redact(value)
    if isinstance(value, Mapping):
        inner = _bare(kind.value_type) if isinstance(kind, mi.DictType) else _ANY
        typed = not isinstance(inner, mi.AnyType)
        return {
            str(key): _plain(item, inner)
            for key, item in value.items()
            if typed or not reads_like_a_secret(str(key))
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        inner = kind.item_type if isinstance(kind, mi.ListType | mi.VarTupleType | mi.SetType) else _ANY
        return [_plain(item, inner) for item in value]
    return msgspec.to_builtins(value, enc_hook=str)  # paths


def _bare(kind: mi.Type, value: Any = None) -> mi.Type:
    """Without annotations and "or null"; of several types the one that a mapping fits, else it counts as untyped."""
    if isinstance(kind, mi.Metadata):
        return _bare(kind.type, value)
    if isinstance(kind, mi.UnionType):
        members = [member for member in kind.types if not isinstance(member, mi.NoneType)]
        structs = [member for member in members if isinstance(_bare(member), mi.StructType)]
        if isinstance(value, Mapping) and len(structs) == 1:
            return _bare(structs[0])
        return _bare(members[0], value) if len(members) == 1 else _ANY
    return kind


def _is_marked(kind: mi.Type, value: Any) -> bool:
    """Whether a value of this type is a secret itself; a struct beside secret texts knows its own secrets."""
    if isinstance(kind, mi.Metadata):
        return bool((kind.extra or {}).get("secret")) or _is_marked(kind.type, value)
    if not isinstance(kind, mi.UnionType) or isinstance(_bare(kind, value), mi.StructType):
        return False
    return any(_is_marked(member, value) for member in kind.types)


def _marked(kind: mi.Type) -> bool:
    if isinstance(kind, mi.Metadata):
        return bool((kind.extra or {}).get("secret")) or _marked(kind.type)
    return any(_marked(inner) for inner in _parts(kind))


def _may_hold(kind: mi.Type, seen: set[type]) -> bool:
    if _marked(kind) or isinstance(kind, mi.AnyType):
        return True
    if isinstance(kind, mi.Metadata):
        return _may_hold(kind.type, seen)
    if isinstance(kind, mi.StructType):
        if kind.cls in seen:
            return False
        seen.add(kind.cls)
        return any(_may_hold(field.type, seen) for field in kind.fields)
    return any(_may_hold(inner, seen) for inner in _parts(kind))


def _parts(kind: mi.Type) -> tuple[mi.Type, ...]:
    """The types that a container or union is made of."""
    if isinstance(kind, mi.UnionType):
        return kind.types
    if isinstance(kind, mi.DictType):
        return (kind.key_type, kind.value_type)
    if isinstance(kind, mi.TupleType):
        return kind.item_types
    if isinstance(kind, mi.CollectionType):
        return (kind.item_type,)
    return ()
