"""From a request to the arguments of the library's calls."""

from __future__ import annotations

from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import GenerateRequest, Media, Message, Notice
from lollms_kernel.upstream import arguments_of, described_functions

from .parameters import Wishes


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, and what is to be said about it."""

    raw: bool
    arguments: dict[str, Any]
    tools: tuple[dict[str, Any], ...]
    words: int
    """A lower bound of its tokens: tokenizers do not join words."""
    notices: tuple[Notice, ...]


def build_prompt(request: GenerateRequest, wishes: Wishes) -> Prompt:
    """Raises InvalidRequest if there is nothing to answer."""
    notices = []
    if wishes.ignored:
        names = ", ".join(wishes.ignored)
        message = f"Parameters without effect here: {names}."
        notices.append(Notice("parameters_ignored", message, {"names": list(wishes.ignored)}))
    functions, unknown = described_functions(request)
    notices += unknown
    if request.raw_prompt is not None:
        return _raw(request, wishes, notices, bool(functions))
    turns = [_turn(message) for message in request.messages]
    if request.system:
        turns.insert(0, {"role": "system", "content": request.system})
    if not any(turn["content"] or turn.get("images") for turn in turns):
        raise _nothing()
    return Prompt(
        raw=False,
        arguments={"model": request.model, "messages": turns, **wishes.arguments},
        tools=tuple({"type": "function", "function": function} for function in functions),
        words=sum(len(turn["content"].split()) for turn in turns),
        notices=tuple(notices),
    )


def _raw(request: GenerateRequest, wishes: Wishes, notices: list[Notice], has_functions: bool) -> Prompt:
    prompt = request.raw_prompt or ""
    if not prompt:
        raise _nothing()  # an empty one would only load the model
    if request.system:
        message = "A raw prompt is continued as it is, without the system text."
        notices.append(Notice("system_ignored", message))
    if has_functions:
        notices.append(Notice("functions_ignored", "A raw prompt is continued without functions."))
    images = _images(request.media)
    return Prompt(
        raw=True,
        arguments={
            "model": request.model,
            "prompt": prompt,
            "raw": True,
            **({"images": images} if images else {}),
            **wishes.arguments,
        },
        tools=(),
        words=len(prompt.split()),
        notices=tuple(notices),
    )


def _turn(message: Message) -> dict[str, Any]:
    images = _images(message.media)
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if images:
        turn["images"] = images
    if message.tool_calls:
        turn["tool_calls"] = [
            {"function": {"name": call.name, "arguments": arguments_of(call)}} for call in message.tool_calls
        ]
    if message.role == "tool" and message.name:
        turn["tool_name"] = message.name
    return turn


def _images(media: tuple[Media, ...]) -> list[bytes]:
    """Always bytes: a text would make the library read a file of this machine."""
    return [bytes(item.data) for item in media if item.type == "image"]


def _nothing() -> InvalidRequest:
    return InvalidRequest("There is nothing to answer.", hint="Send a message or a raw prompt.")
