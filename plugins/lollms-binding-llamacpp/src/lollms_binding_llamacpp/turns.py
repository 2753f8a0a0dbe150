"""Turns a request's conversation into the turns of a chat template, tools and tool results included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from lollms_kernel.types import GenerateRequest, Message

from .tool_formats import GENERIC, ToolFormat

Turn = dict[str, Any]
"""One message as templates expect it: `role`, `content`, perhaps `tool_calls`, `tool_call_id`, `name`."""


class RenderOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a template is told beside the turns."""

    tools: tuple[Any, ...] = ()
    add_generation_prompt: bool = True
    kwargs: dict[str, Any] = {}


MEDIA_MARKER = "\ue7ff<__media__>\ue7ff"
"""Stands for a picture or sound in a turn's text until the prompt is cut there."""
PLAIN_MARKER = "<__media__>"
"""The same as raw prompts write it."""


def conversation(request: GenerateRequest) -> list[Message]:
    """The turns, with every leading system text in one message: most templates know only one."""
    return with_system(request.system, request.messages)


def with_system(system: str | None, messages: Sequence[Message]) -> list[Message]:
    """The messages after a system text that is joined with those they begin with."""
    turns = list(messages)
    texts = [system] if system else []
    while turns and turns[0].role == "system":
        texts.append(turns.pop(0).content)
    return [Message("system", "\n\n".join(texts)), *turns] if texts else turns


def as_turns(messages: Sequence[Message], *, tools_known: bool) -> list[Turn]:
    """Messages as templates expect them. A template that knows no tools gets calls and results as text."""
    return [_turn(message, tools_known) for message in messages]


def _turn(message: Message, tools_known: bool) -> Turn:
    content = "".join(MEDIA_MARKER for _ in message.media) + message.content
    if message.role == "tool":
        if not tools_known:
            return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
        turn: Turn = {"role": "tool", "content": content}
        if message.tool_call_id is not None:
            turn["tool_call_id"] = message.tool_call_id
        if message.name is not None:
            turn["name"] = message.name
        return turn
    if message.role == "assistant" and message.tool_calls:
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
        if tools_known:
            return {"role": "assistant", "content": content, "tool_calls": calls}
        written = [GENERIC.written(call["function"]) for call in calls]  # type: ignore[arg-type]
        return {"role": "assistant", "content": "\n".join([content, *written] if content else written)}
    return {"role": message.role, "content": content}


def _arguments(text: str) -> Any:
    """Templates write arguments as JSON themselves, so they want them as values."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def with_instructions(turns: list[Turn], tools: Sequence[dict[str, Any]], format: ToolFormat) -> list[Turn]:
    """The turns with the tools described in the system text, for templates that know no tools."""
    text = format.instructions(tools)
    if turns and turns[0]["role"] == "system":
        return [{"role": "system", "content": f"{turns[0]['content']}\n\n{text}"}, *turns[1:]]
    return [{"role": "system", "content": text}, *turns]
