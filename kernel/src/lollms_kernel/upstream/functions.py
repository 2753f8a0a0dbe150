"""The functions of a request, as models are told of them, and their calls in a conversation."""

from __future__ import annotations

from typing import Any

import msgspec

from ..types import GenerateRequest, Notice, ToolCall


def described_functions(request: GenerateRequest) -> tuple[list[dict[str, Any]], list[Notice]]:
    """Each function as `{"name", "description"?, "parameters"?}`, and what is to be said of the others.

    Clients describe functions as OpenAI does: `{"type": "function", "function": {…}}`, or the inner part alone. Names
    alone describe nothing, and a service knows no functions of this server.
    """
    described: list[dict[str, Any]] = []
    unknown: list[str] = []
    for function in request.functions:
        inner = function.get("function", function) if isinstance(function, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            described.append(inner)
        else:
            unknown.append(str(function)[:80])
    if not unknown:
        return described, []
    message = f"Functions without a description, which the model was not told of: {', '.join(unknown)}."
    return described, [Notice("functions_ignored", message, {"names": unknown})]


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call as a mapping; empty where they are none."""
    try:
        value = msgspec.json.decode(call.arguments)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return {}
    return value if isinstance(value, dict) else {}


class _Call(msgspec.Struct):
    id: str
    name: str
    arguments: str


class _Calls(msgspec.Struct):
    tool_calls: list[_Call]


def calls_in(text: str) -> tuple[ToolCall, ...]:
    """The calls of an assistant's turn that a client sends back; none where the text is just text.

    Clients of protocols whose turns have no room for calls send them as their answers hold them: the JSON
    `{"tool_calls": [{"id", "name", "arguments"}]}`. Other turns have them in `Message.tool_calls`.
    """
    try:
        found = msgspec.json.decode(text, type=_Calls)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return ()
    return tuple(ToolCall(call.id, call.name, call.arguments, n) for n, call in enumerate(found.tool_calls))
