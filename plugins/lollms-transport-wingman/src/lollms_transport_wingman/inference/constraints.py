"""Grammars, schemas and tools: their size is bounded before anybody turns them into an automaton."""

from __future__ import annotations

from typing import Any

from lollms_kernel.errors import InvalidRequest

MAX_GRAMMAR = 1 << 18
"""Characters of a grammar."""
MAX_NODES = 20_000
MAX_SCHEMA_DEPTH = 64
MAX_TEXT = 1 << 18
MAX_INTEGER = 2**63 - 1
MAX_TOOLS = 256
MAX_TRIGGER = 4096


def check_grammar(grammar: str) -> str:
    """The grammar. Raises InvalidRequest where it is too long."""
    if len(grammar) > MAX_GRAMMAR:
        raise InvalidRequest(
            f"Field 'grammar': has {len(grammar)} characters; at most {MAX_GRAMMAR} are taken."
        )
    return grammar


def check_schema(schema: object, name: str) -> Any:
    """The schema. Raises InvalidRequest where it is no schema, or too large to make a grammar of."""
    if not isinstance(schema, dict | bool):
        raise InvalidRequest(f"Field '{name}': a JSON schema is an object.")
    check_size(schema, name)
    return schema


def check_size(value: object, name: str) -> None:
    """Raise InvalidRequest where a JSON value is too deep or too large, or has integers beyond 64 bits."""
    waiting: list[tuple[object, int]] = [(value, 0)]
    nodes = characters = 0
    while waiting:
        item, depth = waiting.pop()
        nodes += 1
        if isinstance(item, dict):
            characters += sum(map(len, item))
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item]
        elif isinstance(item, str):
            characters += len(item)
        elif isinstance(item, int) and abs(item) > MAX_INTEGER:
            raise InvalidRequest(f"Field '{name}': holds an integer of more than 64 bits.")
        if depth > MAX_SCHEMA_DEPTH:
            raise InvalidRequest(f"Field '{name}': is nested more than {MAX_SCHEMA_DEPTH} levels deep.")
        if nodes + len(waiting) > MAX_NODES or characters > MAX_TEXT:
            raise InvalidRequest(
                f"Field '{name}': is too large.", hint=f"At most {MAX_NODES} values are taken."
            )


def check_triggers(triggers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What makes a lazy grammar begin: `{"type", "value", "token"?}` each."""
    for trigger in triggers:
        value, kind = trigger.get("value"), trigger.get("type")
        if not isinstance(value, str) or len(value) > MAX_TRIGGER:
            raise InvalidRequest("Field 'grammar_triggers': each has a `value` that is a string.")
        if isinstance(kind, bool) or not isinstance(kind, int | str | None):
            raise InvalidRequest("Field 'grammar_triggers': `type` is a number or a word.")
        check_size(trigger, "grammar_triggers")
    return triggers


def read_tools(value: object) -> tuple[dict[str, Any], ...]:
    """The functions of `tools`, described as OpenAI does. Raises InvalidRequest."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise InvalidRequest(f"Field 'tools': must be a list of at most {MAX_TOOLS} tools.")
    check_size(value, "tools")
    for tool in value:
        function = tool.get("function") if isinstance(tool, dict) else None
        if (
            not isinstance(function, dict)
            or not isinstance(function.get("name"), str)
            or not function["name"]
        ):
            raise InvalidRequest(
                'Field \'tools\': each tool is {"type": "function", "function": {"name": …}}.'
            )
        if tool.get("type", "function") != "function":
            raise InvalidRequest(f"Field 'tools': type {str(tool['type'])[:60]!r} is not supported.")
        if not isinstance(function.get("parameters") or {}, dict):
            raise InvalidRequest("Field 'tools': `parameters` is a JSON schema, an object.")
    return tuple(value)


def response_format(value: object) -> dict[str, Any] | None:
    """OpenAI's `response_format`; None where it asks for plain text. Raises InvalidRequest."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidRequest("Field 'response_format': must be an object.")
    kind = value.get("type")
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        if value.get("schema") is not None:
            check_schema(value["schema"], "response_format.schema")
        return value
    if kind == "json_schema":
        inner = value.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        if schema is None:
            raise InvalidRequest("Field 'response_format': json_schema needs `json_schema.schema`.")
        check_schema(schema, "response_format.json_schema.schema")
        return value
    raise InvalidRequest(
        f'response_format type must be one of "text", "json_object" or "json_schema", but got: {str(kind)[:60]}'
    )
