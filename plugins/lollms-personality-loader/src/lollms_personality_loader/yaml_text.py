"""YAML read as text: every scalar stays the string that was written, only an unquoted null becomes None.

So `version: 1.10` stays "1.10", a date stays as written, and tags, which could build other types, have no
effect. It works on the parser's events because personalities come from strangers: PyYAML's safe loader over
libyaml ends the process on some ten thousand nested brackets. libyaml's parser is used where it is there.
"""

from __future__ import annotations

from typing import Any

import yaml

from lollms_kernel.errors import ConfigError

MAX_NESTING = 32
TOO_DEEP = f"more than {MAX_NESTING} levels of nesting"

Value = str | None | list[Any] | dict[str, Any]

_Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


def read_mapping(text: str, where: str, first_line: int = 1) -> dict[str, Any]:
    """The mapping that `text` holds. `where` and `first_line` place it for the ConfigError that is raised."""
    document = _Document()
    latest: yaml.Event | None = None
    try:
        for event in yaml.parse(text, _Loader):
            latest = event
            document.take(event)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = first_line + mark.line if mark else _line_of(latest, first_line)
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        if "maximum nesting depth" in reason:  # libyaml's own limit, met while it looks ahead
            reason = TOO_DEEP
        raise _wrong(where, line, str(reason)) from error
    except _NotUsable as error:
        raise _wrong(where, _line_of(latest, first_line), str(error)) from error
    if not isinstance(document.value, dict):
        raise _wrong(where, first_line, "expected lines of the form `key: value`")
    return document.value


def _line_of(event: yaml.Event | None, first_line: int) -> int:
    mark = event.start_mark if event is not None else None
    return first_line + mark.line if mark is not None else first_line


def _wrong(where: str, line: int, reason: str) -> ConfigError:
    return ConfigError(
        f"{where}, line {line}: {reason}.",
        hint="Correct this line; `|` and indentation keep long texts safe.",
    )


class _NotUsable(Exception):
    """Valid YAML that a personality has no use for."""


class _Open:
    """A list or mapping that is still being filled."""

    def __init__(self, value: list[Any] | dict[str, Any]) -> None:
        self.value = value
        self.key: str | None = None

    def put(self, item: Value) -> None:
        if self.key is not None:
            self.value[self.key] = item  # type: ignore[call-overload]  # lists have no keys
            self.key = None
        elif isinstance(self.value, list):
            self.value.append(item)
        elif item == "<<":
            raise _NotUsable("merge keys are not read, write the keys themselves")
        elif isinstance(item, str | None):
            self.key = item or ""
        else:
            raise _NotUsable("a key must be text")


class _Document:
    """Builds one document from parser events, without recursion."""

    def __init__(self) -> None:
        self._top: list[Any] = []
        self._open = [_Open(self._top)]
        self._anchors: dict[str, Value] = {}

    @property
    def value(self) -> Value:
        return self._top[0] if self._top else None

    def take(self, event: yaml.Event) -> None:
        """Take the next event in. Nine of ten are scalars, so these go a short way."""
        if isinstance(event, yaml.ScalarEvent) and self._open[-1].value is not self._top:
            value = None if event.value in _NULLS and event.implicit[0] else event.value
            self._open[-1].put(value)
            if event.anchor:
                self._anchors[event.anchor] = value
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.NodeEvent):
            self._add(event)

    def _add(self, event: yaml.NodeEvent) -> None:
        value = self._value_of(event)
        if self._open[-1].value is self._top and self._top:
            raise _NotUsable("a second document begins here")
        self._open[-1].put(value)
        if isinstance(event, yaml.AliasEvent):
            return
        if event.anchor:
            self._anchors[event.anchor] = value
        if isinstance(value, list | dict):
            if len(self._open) > MAX_NESTING:
                raise _NotUsable(TOO_DEEP)
            self._open.append(_Open(value))

    def _value_of(self, event: yaml.NodeEvent) -> Value:
        match event:
            case yaml.AliasEvent():
                if event.anchor not in self._anchors:
                    raise _NotUsable(f"no anchor '{event.anchor}' comes before this alias")
                return self._anchors[event.anchor]
            case yaml.MappingStartEvent():
                return {}
            case yaml.SequenceStartEvent():
                return []
            case yaml.ScalarEvent():
                plain = event.implicit[0]
                return None if plain and event.value in _NULLS else str(event.value)
        raise _NotUsable(f"unexpected {event}")
