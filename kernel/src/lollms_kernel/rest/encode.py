"""From chunks to what clients read: the list of OutputData, and server-sent events."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, get_args

import msgspec

from ..thoughts import EMPTY_INCOMPLETE, INCOMPLETE
from ..types import (
    Chunk,
    Failed,
    Finished,
    Info,
    Notice,
    Output,
    Progress,
    TextDelta,
    ThoughtDelta,
    ToolCall,
)
from .wire import OutputData, OutputType, StreamChunk

HEAVY = 1 << 20
"""Answers with more bytes of media than this are encoded in a thread, to keep the event loop free."""

_OUTPUT_TYPES = frozenset(get_args(OutputType))

_encoder = msgspec.json.Encoder(enc_hook=str)


def encode_json(value: Any) -> bytes:
    """JSON; what JSON has no word for becomes its text."""
    return _encoder.encode(value)


def encode_event(chunk: StreamChunk) -> bytes:
    """One server-sent event. Clients rely on `data:` being its first characters and on LF LF after it."""
    return b"data: " + _encoder.encode(chunk) + b"\n\n"


class Answer:
    """What a generation has given so far. Feed it the chunks in order.

    `add` returns the event that tells a streaming client of the chunk, `outputs` the whole at the end; both tell
    the same texts and thoughts.
    """

    def __init__(self, request_id: str, notices: Sequence[Notice] = ()) -> None:
        self._request_id = request_id
        self._notices = list(notices)
        self._text: list[str] = []
        self._open_thought: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._outputs: list[Output] = []
        self._finished: Finished | None = None

    def add(self, chunk: Chunk) -> StreamChunk | None:
        """Take the chunk in; the event to send, if there is something to tell now."""
        match chunk:
            case TextDelta():
                self._text.append(chunk.text)
                return StreamChunk("chunk", chunk.text)
            case ThoughtDelta():
                return self._add_thought(chunk)
            case Info():
                return StreamChunk("info", chunk.content)
            case Progress():
                return StreamChunk("info", chunk.as_info())
            case ToolCall():
                self._calls.append({"id": chunk.id, "name": chunk.name, "arguments": chunk.arguments})
                return StreamChunk("function_call", self._calls[-1])
            case Output():
                self._outputs.append(chunk)
            case Notice():
                self._notices.append(chunk)
            case Finished():
                self._finished = chunk
                return self._add_thought(ThoughtDelta("", end="closed")) if self._open_thought else None
            case Failed():
                return self.failure(chunk)
        return None

    def failure(self, failed: Failed) -> StreamChunk:
        """The last event of a stream that ends badly."""
        metadata = {"request_id": self._request_id, "code": failed.code}
        if failed.hint:
            metadata["hint"] = failed.hint
        return StreamChunk("error", failed.message, None, metadata)

    def final(self) -> StreamChunk:
        """The last event of a stream that ends well; its outputs have all keys, nulls too."""
        content = [msgspec.structs.asdict(output) for output in self.outputs()]
        return StreamChunk("final", content, None, {"request_id": self._request_id})

    @property
    def is_heavy(self) -> bool:
        """Whether it takes long to encode."""
        return sum(len(output.data) for output in self._outputs if isinstance(output.data, bytes)) > HEAVY

    def outputs(self) -> list[OutputData]:
        """The whole answer: the text and its thoughts, then media and other values in the order they came."""
        text = "".join(self._text).strip()
        thoughts = "\n\n".join(self._thoughts) or None
        rest = [_output_data(output) for output in self._outputs]
        if self._calls:
            rest.append(OutputData(type="json", data={"tool_calls": self._calls}, metadata={}))
        if text or thoughts or not rest:
            return [OutputData(type="text", data=text, thoughts=thoughts, metadata=self._metadata()), *rest]
        # metadata of its own tell more of a piece than those of the whole
        metadata = {**self._metadata(), **rest[0].metadata}
        return [msgspec.structs.replace(rest[0], metadata=metadata), *rest[1:]]

    def _add_thought(self, delta: ThoughtDelta) -> StreamChunk | None:
        """Thoughts are told block by block, when a block closes; an empty one is not worth telling."""
        self._open_thought.append(delta.text)
        if not delta.end:
            return None
        thought = "".join(self._open_thought).strip()
        self._open_thought.clear()
        if delta.end == "incomplete":
            thought = f"{INCOMPLETE}\n\n{thought or EMPTY_INCOMPLETE}"
        if not thought:
            return None
        self._thoughts.append(thought)
        return StreamChunk("chunk", None, thought)

    def _metadata(self) -> dict[str, Any]:
        finished = self._finished or Finished()
        others = {key: value for key, value in finished.metadata.items() if key not in ("model", "binding")}
        metadata: dict[str, Any] = {
            "model_used": finished.metadata.get("model"),
            "binding_instance": finished.metadata.get("binding"),
            "finish_reason": finished.reason,
        }
        if finished.usage is not None:
            usage = finished.usage
            metadata["usage"] = {**msgspec.structs.asdict(usage), "total_tokens": usage.total_tokens}
        metadata["timings"] = finished.timings
        if self._notices:
            metadata["notices"] = [msgspec.structs.asdict(notice) for notice in self._notices]
        return {**metadata, **others}


def _output_data(output: Output) -> OutputData:
    data = base64.b64encode(output.data).decode() if isinstance(output.data, bytes) else output.data
    known = output.type in _OUTPUT_TYPES
    metadata = output.metadata if known else {"type": output.type, **output.metadata}
    kind: Any = output.type if known else "json"
    return OutputData(type=kind, data=data, mime_type=output.mime_type, metadata=metadata)
