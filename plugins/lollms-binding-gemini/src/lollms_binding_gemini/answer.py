"""From the pieces that the service streams to chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from lollms_kernel.errors import GenerationFailed
from lollms_kernel.types import (
    Chunk,
    Finished,
    Notice,
    Output,
    TextDelta,
    ThoughtDelta,
    ToolCall,
    Usage,
)
from lollms_kernel.upstream import Service

from .failures import plain_reason
from .sdk import Counts, FunctionCall, Part, Piece

_BLOCKED = {
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "LANGUAGE",
    "MODEL_ARMOR",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
}
_SPOILED = {
    "MALFORMED_FUNCTION_CALL",
    "MALFORMED_RESPONSE",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
}


class Answer:
    """Reads one stream piece by piece; `finish` ends it."""

    def __init__(self, service: Service, model: str, request_id: str, max_tokens: int | None = None) -> None:
        self._service = service
        self._model = model
        self._request_id = request_id
        self._max_tokens = max_tokens
        self._block = 0
        self._thinking = False
        self._calls = 0
        self._said = False
        self._finish: str | None = None
        self._harms: tuple[str, ...] = ()
        self._counts = Counts()

    def read(self, piece: Piece) -> Iterator[Chunk]:
        """The chunks of one piece. Raises InvalidRequest where the service refuses the prompt."""
        self._counts = piece.counts or self._counts
        self._finish = piece.finish or self._finish
        self._harms += piece.harms
        for part in piece.parts:
            yield from self._read(part)
        if piece.blocked:
            raise self._service.blocked(self._why(piece.blocked))

    def finish(self) -> Iterator[Chunk]:
        """The last chunks, Finished at the end. Raises LollmsError where the stream was no whole answer."""
        reason = self._finish
        if reason is None:
            raise self._service.dropped()
        if reason in _SPOILED:
            raise GenerationFailed(
                f"Model '{self._model}' of {self._service} made a call or an answer that cannot be read ({reason}).",
                hint="Try again, or describe the functions more simply.",
            )
        if reason in _BLOCKED and not self._said:
            raise self._service.blocked(self._why(reason))
        yield from self._end_thought("incomplete" if reason == "MAX_TOKENS" else "closed")
        yield from self._deviations(reason)
        yield Finished(
            reason=self._reason(reason), usage=usage_of(self._counts), metadata={"model": self._model}
        )

    # --- parts ----------------------------------------------------------------------------------------------------

    def _read(self, part: Part) -> Iterator[Chunk]:
        if part.thought:
            self._thinking = True
            yield ThoughtDelta(part.text, self._block)
            return
        yield from self._end_thought("closed")
        self._said = True
        if part.call is not None:
            yield self._call(part.call)
        elif part.data is not None:
            kind = (part.mime_type or "image/png").partition("/")[0]
            yield Output(kind, part.data, part.mime_type, {"model": self._model})
        elif part.text:
            yield TextDelta(part.text)

    def _end_thought(self, end: Literal["closed", "incomplete"]) -> Iterator[Chunk]:
        if self._thinking:
            yield ThoughtDelta("", self._block, end)
            self._thinking = False
            self._block += 1

    def _call(self, call: FunctionCall) -> ToolCall:
        index, self._calls = self._calls, self._calls + 1
        arguments = msgspec.json.encode(call.arguments).decode()
        return ToolCall(call.id or f"call_{self._request_id}_{index}", call.name, arguments, index)

    # --- the end --------------------------------------------------------------------------------------------------

    def _reason(self, reason: str) -> str:
        if reason in _BLOCKED:
            return "content_filter"
        if reason == "MAX_TOKENS":
            return "length"
        return "tool_calls" if self._calls else "stop"

    def _deviations(self, reason: str) -> Iterator[Chunk]:
        if reason in _BLOCKED:
            why = self._why(reason)
            message = f"{self._service} cut the answer off for safety reasons ({why})."
            yield Notice("answer_filtered", message, {"reason": why})
        elif reason == "MAX_TOKENS" and self._counts.thoughts and not self._said:
            limit = f" of {self._max_tokens}" if self._max_tokens else ""
            yield Notice(
                "thoughts_took_all",
                f"The model used the whole limit{limit} tokens for thinking. Raise `max_tokens`, or lower `think`.",
                {"thought_tokens": self._counts.thoughts},
            )
        elif reason not in ("STOP", "MAX_TOKENS"):
            message = (
                f"{self._service} ended the answer early ({plain_reason(reason) or 'for another reason'})."
            )
            yield Notice("ended_early", message)

    def _why(self, reason: str) -> str | None:
        words = [plain_reason(word) for word in (reason, *dict.fromkeys(self._harms))]
        return ", ".join(word for word in words if word) or None


def usage_of(counts: Counts) -> Usage:
    """Tokens as this server counts them: thoughts are part of the answer."""
    return Usage(counts.prompt, counts.answer + counts.thoughts, counts.cached)
