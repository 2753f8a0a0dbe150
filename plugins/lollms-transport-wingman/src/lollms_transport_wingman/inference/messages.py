"""OpenAI's `messages` as a conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from lollms_kernel.errors import InvalidRequest, UnsupportedInput
from lollms_kernel.types import Media, Message, ToolCall

from .prompts import decode_base64, media_of

MAX_MESSAGES = 10_000
MAX_CALLS = 256
_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(;[^,;]*)*?(?P<base64>;base64)?,", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


class Conversation(msgspec.Struct, frozen=True):
    """The system text that precedes, and the turns."""

    system: str | None
    turns: tuple[Message, ...]

    @property
    def is_prefilled(self) -> bool:
        """Whether the answer begins with what the last turn already says."""
        return bool(self.turns) and self.turns[-1].role == "assistant" and not self.turns[-1].tool_calls


def read_messages(value: object, *, fetches: bool) -> Conversation:
    """The conversation of a body. `fetches`: whether images may be addresses. Raises InvalidRequest."""
    if value is None:
        raise InvalidRequest("'messages' is required")
    if not isinstance(value, list):
        raise InvalidRequest("Expected 'messages' to be an array")
    if not value:
        raise InvalidRequest("'messages' must not be empty")
    if len(value) > MAX_MESSAGES:
        raise InvalidRequest(f"'messages' has {len(value)} entries; at most {MAX_MESSAGES} are taken.")
    turns = [_read_turn(item, number, fetches) for number, item in enumerate(value)]
    if len(turns) > 1 and turns[-1].role == turns[-2].role == "assistant":
        raise InvalidRequest("Cannot have 2 or more assistant messages at the end of the list.")
    return _told_apart(turns)


def _told_apart(turns: list[Message]) -> Conversation:
    """System texts at the beginning are those of the request; later ones stay where they are."""
    first = next((n for n, turn in enumerate(turns) if turn.role != "system" or turn.media), len(turns))
    if first == len(turns):  # nothing but instructions: they are what is to be answered
        first = len(turns) - 1
    system = "\n\n".join(turn.content for turn in turns[:first] if turn.content)
    return Conversation(system or None, tuple(turns[first:]))


def _read_turn(item: object, number: int, fetches: bool) -> Message:
    place = f"messages[{number}]"
    if not isinstance(item, dict):
        raise InvalidRequest(f"Field '{place}': must be an object.")
    role = item.get("role")
    if role == "function":  # the first way in which OpenAI had tools
        role = "tool"
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidRequest(f"Field '{place}.role': must be one of {', '.join(_ROLES)}.")
    calls = _read_calls(item, place) if role == "assistant" else ()
    content = item.get("content")
    if content is None and role != "assistant":
        raise InvalidRequest("All non-assistant messages must contain 'content'")
    if content is None and not calls and "content" not in item:
        raise InvalidRequest("Assistant message must contain either 'content' or 'tool_calls'!")
    text, media = _read_content(content, place, fetches)
    return Message(
        _ROLES[role],  # type: ignore[arg-type]
        text,
        media,
        calls,
        _text(item, "tool_call_id", place),
        _text(item, "name", place),
    )


def _text(item: dict[str, Any], name: str, place: str) -> str | None:
    value = item.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"Field '{place}.{name}': must be a string.")
    return value


def _read_calls(item: dict[str, Any], place: str) -> tuple[ToolCall, ...]:
    calls = item.get("tool_calls")
    if calls is None and isinstance(item.get("function_call"), dict):
        calls = [{"id": "", "function": item["function_call"]}]
    if calls is None:
        return ()
    if not isinstance(calls, list) or len(calls) > MAX_CALLS:
        raise InvalidRequest(f"Field '{place}.tool_calls': must be a list.")
    return tuple(_read_call(call, number, place) for number, call in enumerate(calls))


def _read_call(call: object, number: int, place: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if (
        not isinstance(call, dict)
        or not isinstance(function, dict)
        or not isinstance(function.get("name"), str)
    ):
        raise InvalidRequest(f"Field '{place}.tool_calls[{number}]': needs `function.name`.")
    arguments = function.get("arguments") or "{}"
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    identity = call.get("id") or ""
    if not isinstance(identity, str):
        raise InvalidRequest(f"Field '{place}.tool_calls[{number}].id': must be a string.")
    return ToolCall(identity, function["name"], arguments, number)


def _read_content(content: object, place: str, fetches: bool) -> tuple[str, tuple[Media, ...]]:
    if content is None:
        return "", ()
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, list):
        raise InvalidRequest(f"Field '{place}.content': must be a string or a list of parts.")
    texts: list[str] = []
    media: list[Media] = []
    for number, part in enumerate(content):
        where = f"{place}.content[{number}]"
        if not isinstance(part, dict):
            raise InvalidRequest(f"Field '{where}': must be an object.")
        kind = part.get("type")
        if kind in ("text", "input_text", "refusal"):
            texts.append(_part_text(part, "refusal" if kind == "refusal" else "text", where))
        else:
            media.append(_read_part(part, kind, where, fetches))
    return "\n".join(texts), tuple(media)


def _part_text(part: dict[str, Any], name: str, where: str) -> str:
    text = part.get(name)
    if not isinstance(text, str):
        raise InvalidRequest(f"Field '{where}.{name}': must be a string.")
    return text


def _read_part(part: dict[str, Any], kind: object, where: str, fetches: bool) -> Media:
    if kind == "image_url":
        inner = part.get("image_url")
        url = inner.get("url") if isinstance(inner, dict) else inner
        detail = inner.get("detail") if isinstance(inner, dict) else None
        if not isinstance(url, str):
            raise InvalidRequest(f"Field '{where}.image_url.url': must be a string.")
        return _image(url, {"detail": detail} if isinstance(detail, str) else {}, where, fetches)
    if kind == "input_audio":
        inner = part.get("input_audio")
        if not isinstance(inner, dict):
            raise InvalidRequest(f"Field '{where}.input_audio': must be an object.")
        form = inner.get("format")
        data = decode_base64(inner.get("data"), f"{where}.input_audio.data")
        mime_type = {"mp3": "audio/mpeg", "wav": "audio/wav"}.get(str(form))
        return Media("audio", "input_audio", data, mime_type or media_of(data).mime_type)
    if kind == "file":
        inner = part.get("file")
        data_url = inner.get("file_data") if isinstance(inner, dict) else None
        if not isinstance(data_url, str):
            raise InvalidRequest(
                f"Field '{where}.file.file_data': must be a data: URL.", hint="Send the file itself."
            )
        mime_type, data = _read_data_url(data_url, where)
        return Media("document", "document", data, mime_type or "application/pdf")
    raise UnsupportedInput(f"Field '{where}.type': unsupported content[].type {str(kind)[:60]!r}")


def _image(url: str, facts: dict[str, Any], where: str, fetches: bool) -> Media:
    if _ADDRESS.match(url):
        if not fetches:
            raise UnsupportedInput(
                f"Field '{where}.image_url.url': this server does not fetch images from addresses for this instance.",
                hint="Send the image itself as a data: URL.",
            )
        return Media("image", "input_image", url.encode(), None, facts)
    mime_type, data = (
        _read_data_url(url, where) if url[:5].lower() == "data:" else (None, decode_base64(url, where))
    )
    return Media("image", "input_image", data, mime_type or media_of(data).mime_type, facts)


def _read_data_url(url: str, where: str) -> tuple[str | None, bytes]:
    head = _DATA_URL.match(url[:300])
    if head is None:
        raise InvalidRequest(f"Field '{where}': must be a data: URL.")
    payload = url[head.end() :]
    if head["base64"]:
        return head["type"], decode_base64(payload, where)
    return head["type"], unquote_to_bytes(payload)


def turns_of(conversation: Conversation) -> Sequence[Message]:
    """All turns, the system text among them, as a chat template gets them."""
    first = () if conversation.system is None else (Message("system", conversation.system),)
    return (*first, *conversation.turns)
