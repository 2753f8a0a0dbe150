"""A request's conversation and functions, as `/chat/completions` takes them; media travel as bytes in the body."""

from __future__ import annotations

import base64
from itertools import groupby
from typing import Any

from lollms_kernel.errors import InvalidRequest, UnsupportedInput
from lollms_kernel.types import GenerateRequest, Media, Message, Notice
from lollms_kernel.upstream import calls_in, described_functions

from .formats import audio_extension, image_mime_type

Part = dict[str, Any]

_TEXTUAL = ("text/", "application/json", "application/xml", "application/yaml", "application/javascript")


def chat_messages(request: GenerateRequest) -> list[dict[str, Any]]:
    """The system text and every turn. Raises InvalidRequest or UnsupportedInput for what cannot be sent."""
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": request.system})
    for is_result, turns in groupby(request.messages, key=lambda turn: turn.role == "tool"):
        if is_result:
            _add_results(messages, list(turns))
        else:
            messages += map(_turn, turns)
    if not messages:
        raise InvalidRequest("There is nothing to answer.", hint="Send a message or a raw prompt.")
    return messages


def _turn(message: Message) -> dict[str, Any]:
    if not message.tool_calls:
        return {"role": message.role, "content": _content(message)}
    calls = [_call(call.id, call.name, call.arguments) for call in message.tool_calls]
    return {"role": message.role, "content": message.content or None, "tool_calls": calls}


def _content(message: Message) -> str | list[Part]:
    """The text alone, or text and media as parts; images come after the text that asks about them."""
    if not message.media:
        return message.content
    parts = [_part(item) for item in message.media]
    return [{"type": "text", "text": message.content}, *parts] if message.content else parts


def _part(item: Media) -> Part:
    if item.type == "image":
        return {
            "type": "image_url",
            "image_url": {"url": _data_url(item.data, image_mime_type(item)), **_detail(item)},
        }
    if item.type == "audio":
        audio_format = audio_extension(item)
        if audio_format not in ("wav", "mp3"):
            raise UnsupportedInput(
                f"Sound of the type '{item.mime_type or 'unknown'}' cannot be sent in a conversation.",
                hint="Send it as WAV or MP3.",
            )
        return {"type": "input_audio", "input_audio": {"data": _base64(item.data), "format": audio_format}}
    if item.type == "document":
        return _document(item)
    raise UnsupportedInput(
        f"A conversation cannot hold '{item.type}'.", hint="Send text, images, sound or PDF."
    )


def _detail(item: Media) -> dict[str, str]:
    """How closely to look at an image: `detail` of the input's metadata."""
    detail = item.metadata.get("detail")
    return {"detail": detail} if detail in ("low", "high", "auto") else {}


def _document(item: Media) -> Part:
    mime_type = (item.mime_type or "text/plain").lower()
    if mime_type == "application/pdf":
        file = {"filename": "document.pdf", "file_data": _data_url(item.data, mime_type)}
        return {"type": "file", "file": file}
    if mime_type.startswith(_TEXTUAL) or mime_type.endswith(("+json", "+xml")):
        return {"type": "text", "text": item.data.decode("utf-8", "replace")}
    raise UnsupportedInput(f"A document of the type '{mime_type}' cannot be sent.", hint="Send text or PDF.")


def _data_url(data: bytes, mime_type: str) -> str:
    return f"data:{mime_type};base64,{_base64(data)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- functions --------------------------------------------------------------------------------------------------


def tools_of(request: GenerateRequest) -> tuple[list[dict[str, Any]], list[Notice]]:
    """The functions that the request offers, from `functions` and the parameter `tools`, in OpenAI's shape."""
    given = request.parameters.get("tools") or []
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise InvalidRequest(
            "parameters.tools is no list of objects.", hint="Describe each tool as OpenAI does."
        )
    described, notices = described_functions(request)
    return [*({"type": "function", "function": function} for function in described), *given], notices


def _add_results(messages: list[dict[str, Any]], turns: list[Message]) -> None:
    """Add results of functions, and before them the calls that they answer, which services insist on.

    The calls are those of the assistant's turn. Where it has none but its text is their JSON, as our REST answers hold
    them, they are taken from it; others are made up, so that a result still reads as one.
    """
    last = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    calls: list[dict[str, Any]] = []
    if last is not None and "tool_calls" in last:
        calls = last["tool_calls"] = last["tool_calls"][: len(turns)]
    elif last is not None and isinstance(last["content"], str):
        found = calls_in(last["content"])[: len(turns)]
        if found:
            calls = [_call(call.id, call.name, call.arguments) for call in found]
            messages[-1] = {"role": "assistant", "content": None, "tool_calls": calls}
    if not calls:
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
    for number in range(len(calls), len(turns)):
        name = turns[number].name or "function"
        calls.append(_call(f"call_{len(messages)}_{number}", name, "{}"))
    told = {call["id"] for call in calls}
    named = {turn.tool_call_id: turn.content for turn in turns if turn.tool_call_id in told}
    others = iter([turn.content for turn in turns if turn.tool_call_id not in told])
    for call in calls:
        content = named[call["id"]] if call["id"] in named else next(others, "")
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})


def _call(identity: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
