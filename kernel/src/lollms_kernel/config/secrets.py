"""Which settings are secret, and settings without them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect as mi

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


def redact(settings: msgspec.Struct) -> dict[str, Any]:
    """Plain values of a settings Struct without its secrets: fields marked `contracts.Secret` are left out.

    Mappings without types have no marks; of those, entries whose key reads like a secret's name go too.
    """
    return {
        field.encode_name: _plain(getattr(settings, field.name), mi.type_info(field.type))
        for field in msgspec.structs.fields(type(settings))
        if not is_secret(field.type)
    }


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
            if typed or not _READS_LIKE_A_SECRET.search(str(key))
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        inner = kind.item_type if isinstance(kind, mi.ListType | mi.VarTupleType | mi.SetType) else _ANY
        return [_plain(item, inner) for item in value]
    return msgspec.to_builtins(value, enc_hook=str)  # paths


def _bare(kind: mi.Type) -> mi.Type:
    """Without annotations and "or null"; a union of several types counts as untyped."""
    if isinstance(kind, mi.Metadata):
        return _bare(kind.type)
    if isinstance(kind, mi.UnionType):
        members = [member for member in kind.types if not isinstance(member, mi.NoneType)]
        return _bare(members[0]) if len(members) == 1 else _ANY
    return kind


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
