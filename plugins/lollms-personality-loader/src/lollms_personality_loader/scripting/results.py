"""From what scripts return and yield to chunks: the shapes of lollms_server 0.3, read tolerantly."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any

from lollms_kernel.types import Chunk, Info, Notice, Output, TextDelta, ThoughtDelta, ToolCall

OUTPUT_TYPES = frozenset({"text", "image", "audio", "video", "json", "error", "info"})
_MEDIA = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4"}
_SHORT_KEYS = {"text": "text", "image_base64": "image", "audio_base64": "audio", "video_base64": "video"}


class Results:
    """Turns one script's results into chunks, in order; remembers what has been told already."""

    def __init__(self, personality: str) -> None:
        self._personality = personality
        self._blocks = 0
        self._texts = 0
        self.empty = True
        """Whether nothing has come that a client could show."""
        self.facts: dict[str, Any] = {}
        """Metadata of the text as a whole."""

    def returned(self, value: Any) -> Iterator[Chunk]:
        """What `run_workflow` gave: text, one output, a list of them, or any other value."""
        match value:
            case None:
                return
            case list():
                yield from self._list(value)
            case dict():
                for output in _outputs_of(value):
                    yield from self._output(output)
            case _:
                yield from self._text(_text_of(value))

    def yielded(self, item: Any) -> Iterator[Chunk]:
        """One item of an async generator: a stream chunk, or anything that could be returned as well."""
        if not isinstance(item, dict):
            yield from self.returned(item)
            return
        match item.get("type"):
            case "chunk":
                yield from self._thoughts(item.get("thoughts"))
                yield from self._text(_text_of(item.get("content")))
            case "info" if "data" not in item:
                yield from self._info(item.get("content"))
            case "error" if "data" not in item:
                yield from self.failed(_text_of(item.get("content")))
            case "function_call" if isinstance(item.get("content"), dict):
                yield from self._call(item["content"])
            case "final":
                yield from self._final(item.get("content"))
            case _:
                yield from self.returned(item)

    def failed(self, text: str) -> Iterator[Chunk]:
        """An error as an output: what came before it stays."""
        self.empty = False
        yield Output("error", text, None, {"personality": self._personality})

    def _list(self, items: list[Any]) -> Iterator[Chunk]:
        dropped = [item for item in items if not _is_output(item)]
        if len(dropped) == len(items):
            yield from self.failed("Internal error: Failed to standardize generation output.")
        for item in items:
            if _is_output(item):
                yield from self._output(item)
        if dropped:
            kinds = ", ".join(
                sorted(
                    {str(i.get("type") if isinstance(i, dict) else type(i).__name__)[:50] for i in dropped}
                )
            )
            message = f"The script gave {len(dropped)} outputs that are none: {kinds}."
            yield Notice("outputs_ignored", message)

    def _final(self, content: Any) -> Iterator[Chunk]:
        """The whole answer at the end of a stream; its text counts where none was streamed."""
        told = not self.empty
        items = content if isinstance(content, list) else [content]
        for value in (output for item in items for output in _outputs_of(item)):
            if value.get("type") == "text" and isinstance(value.get("metadata"), dict):
                self.facts.update(value["metadata"])
            if value.get("data") is None or (told and value.get("type") in ("text", "info")):
                continue
            yield from self._output(value)

    def _output(self, value: Mapping[str, Any]) -> Iterator[Chunk]:
        kind, data, mime_type = str(value["type"]), value["data"], value.get("mime_type")
        metadata = value.get("metadata")
        facts = metadata if isinstance(metadata, dict) else {}
        if kind == "text" and not self._texts:
            self.facts.update(facts)
            yield from self._thoughts(value.get("thoughts"))
            yield from self._text(_text_of(data))
            return
        self.empty = False
        if kind in _MEDIA:
            data, mime_type = _bytes_of(data), mime_type or _MEDIA[kind]
        elif kind == "text":
            data = _text_of(data)
        yield Output(kind, data, mime_type if isinstance(mime_type, str) else None, facts)

    def _text(self, text: str) -> Iterator[Chunk]:
        if text:
            self.empty = False
            self._texts += 1
            yield TextDelta(text)

    def _thoughts(self, text: Any) -> Iterator[Chunk]:
        if isinstance(text, str) and text:
            self.empty = False
            yield ThoughtDelta(text, self._blocks, "closed")
            self._blocks += 1

    @staticmethod
    def _info(content: Any) -> Iterator[Chunk]:
        if content is not None:
            yield Info(content if isinstance(content, dict) else _text_of(content))

    def _call(self, content: Mapping[str, Any]) -> Iterator[Chunk]:
        arguments = content.get("arguments", "{}")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        self.empty = False
        yield ToolCall(str(content.get("id", "call_0")), str(content.get("name", "")), text)


def _outputs_of(value: Any) -> list[Mapping[str, Any]]:
    """The outputs that a value stands for: itself, one for each of its short keys, else its text or JSON."""
    if not isinstance(value, dict):
        return [{"type": "text", "data": value}]
    if _is_output(value):
        return [value]
    metadata, mime_type = value.get("metadata"), value.get("mime_type")
    facts = metadata if isinstance(metadata, dict) else {}
    found = [
        {"type": kind, "data": value[key], "mime_type": mime_type, "metadata": facts}
        for key, kind in _SHORT_KEYS.items()
        if isinstance(value.get(key), str | bytes)
    ]
    return [*found] or [{"type": "json", "data": value}]


def _is_output(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in OUTPUT_TYPES and value.get("data") is not None


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _bytes_of(data: Any) -> Any:
    """Media as bytes; base64, with or without a `data:` address, is decoded. What is neither stays."""
    if not isinstance(data, str):
        return data
    text = data.partition(",")[2] if data.startswith("data:") else data
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return data
