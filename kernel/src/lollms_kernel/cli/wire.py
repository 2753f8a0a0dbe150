"""LoLLMs REST as a client speaks it: request bodies, and chunks out of server-sent events."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ..errors import GenerationFailed
from ..types import (
    Chunk,
    Failed,
    Finished,
    GenerateRequest,
    Info,
    Media,
    Notice,
    Output,
    Progress,
    TextDelta,
    ThoughtDelta,
    Timings,
    ToolCall,
    Usage,
)

_ROLES = {
    "user": "user_prompt",
    "assistant": "assistant_reply",
    "system": "system_prompt",
    "tool": "tool_result",
}
_MEDIA = ("image", "audio", "video")


def encode_request(request: GenerateRequest) -> dict[str, Any]:
    """The body of POST /api/v1/generate that asks for the same, as a stream."""
    items: list[dict[str, Any]] = []
    if request.system:
        items.append({"type": "text", "role": "system_context", "data": request.system})
    for message in request.messages:
        items.append({"type": "text", "role": _ROLES[message.role], "data": message.content})
        items += [_encode_media(media) for media in message.media]
    body = {
        "input_data": items,
        "generation_type": request.generation_type,
        "personality": request.personality,
        "binding_name": request.binding,
        "model_name": request.model,
        "parameters": request.parameters,
        "stream": True,
    }
    return {name: value for name, value in body.items() if value is not None}


def _encode_media(media: Media) -> dict[str, Any]:
    data = base64.b64encode(media.data).decode()
    return {
        "type": media.type,
        "role": media.role,
        "data": data,
        "mime_type": media.mime_type,
        "metadata": media.metadata,
    }


def decode_events(lines: Iterable[str]) -> Iterator[Chunk]:
    """The chunks of an event stream, up to Finished or Failed.

    Raises GenerationFailed if it ends without one or is not a LoLLMs stream.
    """
    decoder = _Decoder()
    for line in lines:
        if line.startswith("data:"):
            yield from decoder.feed(line.removeprefix("data:"))
            if decoder.ended:
                return
    raise GenerationFailed("The answer broke off: the server closed the connection.", hint="Look at its log.")


class _Event(msgspec.Struct, frozen=True):
    type: str
    content: Any = None
    thoughts: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class _OutputData(msgspec.Struct, frozen=True):
    type: str
    data: Any
    mime_type: str | None = None
    thoughts: str | None = None
    metadata: dict[str, Any] | None = None


class _Decoder:
    def __init__(self) -> None:
        self.ended = False
        self._texts = self._blocks = self._calls = 0

    def feed(self, text: str) -> Iterator[Chunk]:
        """The chunks that one event stands for; kinds of events that are not known are passed over."""
        event = _read(text)
        match event.type:
            case "chunk":
                yield from self._deltas(event)
            case "info":
                yield _info(event.content)
            case "function_call":
                self._calls += 1
                yield _convert(event.content, ToolCall)
            case "error":
                self.ended = True
                yield _failed(event)
            case "final":
                self.ended = True
                yield from self._final(event)

    def _deltas(self, event: _Event) -> Iterator[Chunk]:
        if event.thoughts:
            yield ThoughtDelta(event.thoughts, self._blocks, "closed")
            self._blocks += 1
        if event.content:
            self._texts += 1
            yield TextDelta(str(event.content))

    def _final(self, event: _Event) -> Iterator[Chunk]:
        """What was not streamed, then notices and the end; they travel in the metadata of the first output."""
        items = _convert(event.content, list[_OutputData])
        metadata = {**(items[0].metadata or {}), **event.metadata} if items else dict(event.metadata)
        for item in items:
            if item.type == "error":
                yield Failed(GenerationFailed.code, str(item.data))
                return
            if item.type != "text":
                if not (self._calls and item.type == "json"):  # tool calls once more
                    yield Output(item.type, _media_bytes(item), item.mime_type, item.metadata or {})
            elif item.data and not self._texts:
                yield TextDelta(str(item.data))
        yield from _convert(metadata.pop("notices", []), list[Notice])
        usage = _convert(metadata.pop("usage", None), Usage | None)
        timings = _convert(metadata.pop("timings", {}), Timings)
        yield Finished(str(metadata.pop("finish_reason", "stop")), usage, timings, metadata)


def _read(text: str) -> _Event:
    try:
        return msgspec.json.decode(text, type=_Event)
    except msgspec.DecodeError as error:
        raise _not_lollms(error) from error


def _convert(value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _not_lollms(error) from error


def _not_lollms(error: msgspec.MsgspecError) -> GenerationFailed:
    return GenerationFailed(
        f"The server sent an event of another shape: {error}.", hint="Is it a lollms server?"
    )


def _info(content: Any) -> Chunk:
    """Progress travels as info."""
    if isinstance(content, dict):
        step, total = content.get("step"), content.get("total")
        if content.get("status") == "progress" and isinstance(step, int) and isinstance(total, int):
            return Progress(step, total, _preview(content), content.get("mime_type"))
        return Info(content)
    return Info(str(content))


def _preview(content: dict[str, Any]) -> bytes | None:
    """The picture that came with a step; one that cannot be read is none."""
    text = content.get("preview")
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except binascii.Error:
        return None


def _failed(event: _Event) -> Failed:
    hint = event.metadata.get("hint")
    return Failed(
        str(event.metadata.get("code", GenerationFailed.code)), str(event.content), hint and str(hint)
    )


def _media_bytes(item: _OutputData) -> Any:
    """Media travel as base64; other values, and addresses instead of data, stay as they are."""
    if item.type not in _MEDIA or not isinstance(item.data, str):
        return item.data
    try:
        return base64.b64decode(item.data, validate=True)
    except binascii.Error:
        return item.data
