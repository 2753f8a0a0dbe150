"""Edits of YAML texts that keep comments, order, quotes and layout.

What a text means is always what `yaml_format` reads. The round-trip library follows a newer version of YAML (there
`yes` is text), so it only ever sees texts: what a word means is decided here, and whoever saves reads the result again.
"""

from __future__ import annotations

import io
import re
from typing import Any

import yaml as old_yaml

from ..errors import ConfigError
from .files import decoded
from .places import Place, empty_for
from .plain import HINT
from .yaml_comments import give_head, give_tail, keys_of, take_tail

_NO_LIMIT = 1 << 30
_TEXT_TAG = "tag:yaml.org,2002:str"
_WORDS = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "null", "timestamp")}
_NULLS = {"null", "Null", "NULL", "~"}


class YamlEditor:
    """A YAML text that changes value by value and keeps all else."""

    def __init__(self, data: bytes, where: str) -> None:
        from ruamel.yaml.error import YAMLError

        text = decoded(data, where)
        self._crlf = "\r\n" in text
        text = text.replace("\r\n", "\n")
        self._round_trip = _round_trip(text)
        try:
            self._document: Any = self._round_trip.load(text)
        except YAMLError as error:
            raise ConfigError(f"{where} cannot be edited: {type(error).__name__}.", hint=HINT) from None
        if self._document is None:
            self._document = _commented({})
            self._head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
        else:
            self._head = ""
        self._foot = ""

    def put(self, place: Place, value: Any) -> None:
        """Set the value at a place; sections on the way are created."""
        holder: Any = self._document
        for depth, part in enumerate(place[:-1]):
            if part == len(holder) if isinstance(part, int) else _is_null(holder.get(part)):
                self._put(holder, place[: depth + 1], empty_for(place[depth + 1]))
            holder = holder[part]
        self._put(holder, place, value)

    def drop(self, place: Place) -> None:
        """Take the value at a place away."""
        holder, last = self._holder(place), place[-1]
        tail = take_tail(holder, last)
        keys = keys_of(holder)
        position = keys.index(last)
        following = keys[position + 1 :]
        del holder[last]
        if position:
            self._give_tail((*place[:-1], keys[position - 1]), tail)
        elif following:
            give_head(holder, last if isinstance(holder, list) else following[0], tail)
        else:
            self._give_tail(place[:-1], tail)

    def text(self) -> str:
        """The whole text as it is now."""
        stream = io.StringIO()
        self._round_trip.dump(self._document, stream)
        text = self._head + stream.getvalue() + self._foot
        return text.replace("\n", "\r\n") if self._crlf else text

    def _put(self, holder: Any, place: Place, value: Any) -> None:
        """Set one value; what is written for the key that follows stays before that one."""
        key, keys = place[-1], keys_of(holder)
        is_new = key not in keys
        before = keys[-1:] if is_new else [key]
        tail = take_tail(holder, before[0]) if before else ""
        if is_new and isinstance(holder, list):
            holder.append(_commented(value))
        else:
            holder[_scalar(str(key)) if is_new else key] = _commented(value)
        self._give_tail(place, tail)

    def _give_tail(self, place: Place, tail: str) -> None:
        """Let comment lines follow the value at a place."""
        if tail and place and not give_tail(self._holder(place), place[-1], tail):
            self._give_tail_to_next(place, tail)
        elif not place:
            self._foot += tail

    def _give_tail_to_next(self, place: Place, tail: str) -> None:
        """Let comment lines precede whatever comes after a place."""
        for depth in range(len(place), 0, -1):
            holder = self._holder(place[:depth])
            keys = keys_of(holder)
            following = keys[keys.index(place[depth - 1]) + 1 :]
            if following:
                give_head(holder, following[0], tail)
                return
        self._foot += tail

    def _holder(self, place: Place) -> Any:
        """The section or list that holds the value at a place."""
        holder: Any = self._document
        for part in place[:-1]:
            holder = holder[part]
        return holder


def write_yaml(values: dict[str, Any]) -> bytes:
    """The text of a new YAML file."""
    editor = YamlEditor(b"", "")
    for key, value in values.items():
        editor.put((key,), value)
    return editor.text().encode()


def _round_trip(text: str) -> Any:
    """The library, told to write as the text is written and to leave the meaning of words to us."""
    from ruamel.yaml import YAML
    from ruamel.yaml.resolver import VersionedResolver
    from ruamel.yaml.tag import Tag

    class Resolver(VersionedResolver):
        """Takes every word for text, so that it stays as it is written: 1_000, yes, 2024-01-31, null."""

        def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
            tag = super().resolve(kind, value, implicit)
            return Tag(suffix=_TEXT_TAG) if value and str(tag) in _WORDS else tag

    round_trip = YAML(typ="rt", pure=True)
    round_trip.Resolver = Resolver
    round_trip.preserve_quotes = True
    round_trip.width = _NO_LIMIT
    round_trip.allow_duplicate_keys = True  # decided by the reader, which sees other duplicates (`<<`)
    mapping, offset = _indents(text)
    round_trip.indent(mapping=mapping, sequence=offset + 2, offset=offset)
    return round_trip


def _indents(text: str) -> tuple[int, int]:
    """By how much the text indents keys below their section, and the dashes of a list below its key."""
    mapping = re.search(
        r"^( *)[^\s#-][^#\n]*:[ \t]*(?:#.*)?\n(?:[ \t]*(?:#.*)?\n)*\1( +)[^\s#-]", text, re.MULTILINE
    )
    dashes = re.search(
        r"^( *)[^\s#-][^#\n]*:[ \t]*(?:#.*)?\n(?:[ \t]*(?:#.*)?\n)*\1( *)- ", text, re.MULTILINE
    )
    return len(mapping[2]) if mapping else 2, len(dashes[2]) if dashes else 2


def _commented(value: Any) -> Any:
    """The value as the library holds it."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import PlainScalarString

    if isinstance(value, dict):
        return CommentedMap((_scalar(key), _commented(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return CommentedSeq(_commented(item) for item in value)
    if isinstance(value, str):
        return _scalar(value)
    representer: Any = old_yaml.representer.SafeRepresenter()
    return PlainScalarString(representer.represent_data(value).value)


def _scalar(text: str) -> Any:
    """A text, in quotes wherever a reader would take it for something else."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    resolver: Any = old_yaml.SafeLoader("")
    plain = resolver.resolve(old_yaml.ScalarNode, text, (True, False)) == _TEXT_TAG
    return text if plain and text.isprintable() and text.isascii() else DoubleQuotedScalarString(text)


def _is_null(value: Any) -> bool:
    """Whether a value of the library is a null; a text in quotes has a type of its own there."""
    from ruamel.yaml.scalarstring import PlainScalarString

    return value is None or (type(value) in (str, PlainScalarString) and value in _NULLS)
