"""Types and values in words, for errors and for the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from msgspec import inspect as mi

_SHOWN = 60
# bool before int: in Python it is one.
_KINDS: tuple[tuple[Any, str], ...] = (
    (str, "text"),
    (bool, "true or false"),
    (int | float, "a number"),
    (Mapping, "a mapping"),
    (Sequence | set | frozenset, "a list"),
)


def describe(type_: Any) -> str:
    """What a value of this type may be, e.g. "an integer from 1 to 65535" or "text or null"."""
    return _phrase(mi.type_info(type_))


def shown(value: object) -> str:
    """A short form of a value that is not secret, on one line and harmless in a terminal whatever it holds."""
    if isinstance(value, str):
        text = "".join(char if char.isprintable() else _escaped(char) for char in value[:_SHOWN])
        return f'"{text}{"…" if len(value) > _SHOWN else ""}"'
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value!r:.{_SHOWN}}" if isinstance(value, int | float) else kind_of(value)


def kind_of(value: object) -> str:
    """What sort of value it is, without the value."""
    if value is None:
        return "empty (null)"
    for kinds, words in _KINDS:
        if isinstance(value, kinds):
            return words
    return f"a {type(value).__name__}"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _phrase(kind: mi.Type) -> str:
    match kind:
        case mi.Metadata():
            allowed = (kind.extra or {}).get("allowed")
            return str(allowed) if allowed else _phrase(kind.type)
        case mi.UnionType():
            # `null` reads best at the end, wherever the annotation has it.
            members = sorted(kind.types, key=lambda member: isinstance(member, mi.NoneType))
            return " or ".join(_phrase(member) for member in members)
        case mi.IntType():
            return "an integer" + _range(kind)
        case mi.FloatType():
            return "a number" + _range(kind)
        case mi.StrType():
            return "text that is not empty" if kind.min_length else "text"
        case mi.LiteralType():
            return "one of " + ", ".join(str(value) for value in kind.values)
        case mi.EnumType():
            return "one of " + ", ".join(str(member.value) for member in kind.cls)
        case mi.CustomType() if issubclass(kind.cls, PurePath):
            return "a path"
        case mi.CollectionType():
            return f"a list, each entry {_phrase(kind.item_type)}"
        case mi.DictType() | mi.StructType():
            return "a mapping of keys to values"
        case _:
            return _PLAIN.get(type(kind), f"a {type(kind).__name__.removesuffix('Type').lower()}")


_PLAIN: dict[type[mi.Type], str] = {
    mi.AnyType: "any value",
    mi.BoolType: "true or false",
    mi.NoneType: "null",
    mi.TupleType: "a list",
}


def _range(kind: mi.IntType | mi.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f" from {_number(kind.ge)} to {_number(kind.le)}"
    limits = [
        f"{words} {_number(limit)}"
        for words, limit in (
            ("of at least", kind.ge),
            ("greater than", kind.gt),
            ("at most", kind.le),
            ("less than", kind.lt),
        )
        if limit is not None
    ]
    return f" {' and '.join(limits)}" if limits else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
