"""YAML files into plain values: safe, bounded, strict about duplicates.

The values are built from the parser's events and not by PyYAML's composer, because that recurses in C (half a
megabyte of "[" ends the process), lets the later of two equal keys win, and quotes text of the file, perhaps a
secret, in its errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from ..errors import ConfigError
from .describe import shown
from .files import decoded
from .plain import HINT, MAX_DEPTH, MAX_NUMBER, MAX_VALUES

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_QUOTED = re.compile(r"'[^']{2,}'")
_TAG = "tag:yaml.org,2002:"
_TYPED = {_TAG + name for name in ("null", "bool", "int", "float")}
# Dates and "=" have types of their own in YAML and mean plain text here.
_TEXT = {_TAG + name for name in ("str", "timestamp", "value", "merge")}


def parse_yaml_bytes(data: bytes, where: str) -> Any:
    """The one document of a YAML file, None if it is empty. Raises ConfigError with line and column."""
    return parse_yaml(decoded(data, where), where)


def parse_yaml(text: str, where: str) -> Any:
    """The one document of a YAML text; `where` names it in errors."""
    try:
        return _Document(text, where).read()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{where}, line {line}: a character that YAML does not allow.") from None
    except yaml.MarkedYAMLError as error:
        raise _fault(where, error.problem_mark or error.context_mark, _syntax(error)) from None


def _syntax(error: yaml.MarkedYAMLError) -> str:
    """What the parser says, without what it quotes: that may be part of a secret."""
    if "maximum nesting depth" in (error.problem or ""):  # libyaml's own limit, met while it looks ahead
        return f"nested deeper than {MAX_DEPTH} levels."
    context = (
        f" {error.context} that begins in line {error.context_mark.line + 1}," if error.context_mark else ""
    )
    return _QUOTED.sub("…", f"not valid YAML:{context} {error.problem or 'the text cannot be read'}.")


class _Document:
    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._events: Iterator[Any] = yaml.parse(text, Loader=_PARSER)
        self._scalars = yaml.SafeLoader("")
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0

    def read(self) -> Any:
        value = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                value = self._value(next(self._events), 0)
                break
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                raise self._error(event, "a second document begins; one file holds one.")
        return value

    def _value(self, event: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self._error(event, f"nested deeper than {MAX_DEPTH} levels.")
        before = self._values
        self._count(event, 1)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._error(event, "an alias of nothing; a text that begins with * needs quotes.")
            value, size = self._anchors[event.anchor]
            self._count(event, size)
            return value
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._refuse_tag(event, "seq")
            value = self._sequence(depth)
        else:
            self._refuse_tag(event, "map")
            value = self._mapping(depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._values - before)
        return value

    def _sequence(self, depth: int) -> list[Any]:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
            key = self._value(event, depth + 1)
            if not isinstance(key, str):
                raise self._error(event, "a key that is not text; put it in quotes.")
            if key in lines:
                raise self._error(event, f"the key {shown(key)} is there twice, first in line {lines[key]}.")
            lines[key] = event.start_mark.line + 1
            value = self._value(value_event := next(self._events), depth + 1)
            if merge:
                merged = self._merged(value, value_event)
            else:
                own[key] = value
        return {**merged, **own}

    def _merged(self, value: Any, event: Any) -> dict[str, Any]:
        sources = value if isinstance(value, list) else [value]
        result: dict[str, Any] = {}
        for source in reversed(sources):  # the first one wins
            if not isinstance(source, dict):
                raise self._error(event, "<< takes a mapping or a list of mappings.")
            result.update(source)
        return result

    def _scalar(self, event: Any) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._scalars.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        if tag in _TEXT:
            return event.value
        if tag not in _TYPED:
            raise self._error(event, "a tag that is not known; a text that begins with ! needs quotes.")
        kind = tag.removeprefix(_TAG)
        if len(event.value) > MAX_NUMBER:
            raise self._error(event, f"a very long {kind}; put it in quotes if it is text.")
        try:
            node = yaml.ScalarNode(tag, event.value)
            return self._scalars.construct_object(node)
        except (ValueError, KeyError, IndexError):  # PyYAML lets through what its patterns match too widely
            raise self._error(event, f"not a valid {kind}; put it in quotes if it is text.") from None

    def _refuse_tag(self, event: Any, kind: str) -> None:
        if event.tag not in (None, "!", _TAG + kind):
            raise self._error(event, "a tag that is not known here.")

    def _count(self, event: Any, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise self._error(event, f"more than {MAX_VALUES:,} values, aliases counted in full.")

    def _error(self, event: Any, text: str) -> ConfigError:
        return _fault(self._where, event.start_mark, text)


def _fault(where: str, mark: Any, text: str) -> ConfigError:
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return ConfigError(f"{where}{place}: {text}", hint=HINT)
