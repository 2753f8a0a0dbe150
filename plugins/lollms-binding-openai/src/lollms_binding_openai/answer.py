"""Turns what a service streams into chunks of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from lollms_kernel.types import Chunk, Finished, Notice, TextDelta, ThoughtDelta, Timings, ToolCall, Usage

_REASONS = {
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


# --- the wire: what is used of it; servers that are merely similar are held to these types ------------------------


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _ToolDelta(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolDelta] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    """Where a service answers in one piece although it was asked to stream."""
    text: str | None = None
    """Of `/completions`."""
    finish_reason: str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Reasoned(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoned | None = None


class _Timings(msgspec.Struct):
    """Of llama-server."""

    prompt_ms: float | None = None
    predicted_ms: float | None = None


class Piece(msgspec.Struct):
    """One event of a stream, or the whole of an answer that is none."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None
    model: str | None = None


def has_begun(piece: Piece) -> bool:
    """Whether the model has said something; services greet with the role of the answer before it thinks."""
    choice = piece.choices[0] if piece.choices else None
    if choice is None:
        return False
    delta = choice.delta or choice.message or _Delta()
    said = (
        delta.content,
        delta.reasoning_content,
        delta.reasoning,
        delta.refusal,
        delta.tool_calls,
        choice.text,
    )
    return any(said) or choice.finish_reason is not None


# --- chunks -----------------------------------------------------------------------------------------------------


class Answer:
    """Feed it the pieces in order with `add`, then ask for the end."""

    def __init__(self) -> None:
        self.is_empty = True
        """Whether nothing at all was said, not even why it ended."""
        self._reason: str | None = None
        self._refused = False
        self._thinking = False
        self._blocks = 0
        self._calls: dict[int, ToolCall] = {}
        self._usage: _Usage | None = None
        self._timings = _Timings()
        self._model: str | None = None

    def add(self, piece: Piece) -> Iterator[Chunk]:
        """What the piece says."""
        self._usage = piece.usage or self._usage
        self._timings = piece.timings or self._timings
        self._model = piece.model or self._model
        for choice in piece.choices or ():
            if choice.index == 0:
                yield from self._add_choice(choice)

    def end(self, asked: str) -> Iterator[Chunk]:
        """The calls, what there is to notice, and Finished. `asked` is the model that the request named."""
        if self._thinking:
            self._thinking = False
            yield ThoughtDelta("", self._blocks, "incomplete" if self._reason == "length" else "closed")
        yield from self._calls.values()
        if self._reason is None:
            yield Notice("end_unmarked", "The service did not say why its answer ended; it may be cut off.")
        yield Finished(
            self._finish_reason(), self._counted(), timings=self._timed(), metadata=self._metadata(asked)
        )

    def _add_choice(self, choice: _Choice) -> Iterator[Chunk]:
        delta = choice.delta or choice.message or _Delta()
        thought = delta.reasoning_content or delta.reasoning or ""
        text = _text(delta.content) + (delta.refusal or "") + (choice.text or "")
        thought += _thoughts(delta.content)
        if thought:
            self._thinking = True
            yield ThoughtDelta(thought, self._blocks)
        if self._thinking and (text or delta.tool_calls):
            self._thinking = False
            yield ThoughtDelta("", self._blocks, "closed")
            self._blocks += 1
        if text:
            yield TextDelta(text)
        for call in delta.tool_calls or ():
            self._add_call(call)
        self._refused = self._refused or bool(delta.refusal)
        self._reason = choice.finish_reason or self._reason
        if thought or text or delta.tool_calls or self._reason:
            self.is_empty = False

    def _add_call(self, delta: _ToolDelta) -> None:
        """Names come with the first piece of a call, arguments in any number of pieces; some leave out the index."""
        function = delta.function or _Function()
        arguments = function.arguments
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        index = delta.index
        if index is None:
            last = max(self._calls, default=-1)
            continues = last >= 0 and delta.id in (None, self._calls[last].id) and not function.name
            index = last if continues else last + 1
        known = self._calls.get(index) or ToolCall("", "", "", index)
        self._calls[index] = ToolCall(
            id=known.id or delta.id or f"call_{index}",
            name=known.name or function.name or "",
            arguments=known.arguments + (arguments or ""),
            index=index,
        )

    def _finish_reason(self) -> str:
        if self._refused:
            return "content_filter"
        if self._calls and self._reason in (None, "stop"):
            return "tool_calls"
        return _REASONS.get(self._reason or "", "stop")

    def _counted(self) -> Usage | None:
        usage = self._usage
        if usage is None:
            return None
        cached = usage.prompt_tokens_details or _Cached()
        counts = (usage.prompt_tokens, usage.completion_tokens, cached.cached_tokens)
        return Usage(*(max(count or 0, 0) for count in counts))

    def _timed(self) -> Timings:
        prompt, generate = self._timings.prompt_ms, self._timings.predicted_ms
        return Timings(
            prompt=None if prompt is None else prompt / 1000,
            generate=None if generate is None else generate / 1000,
        )

    def _metadata(self, asked: str) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        if self._model and self._model != asked:
            metadata["service_model"] = self._model
        details = self._usage.completion_tokens_details if self._usage else None
        if details is not None and details.reasoning_tokens:
            metadata["reasoning_tokens"] = details.reasoning_tokens
        return metadata


def _text(content: str | list[dict[str, Any]] | None) -> str:
    """The visible text; Mistral's reasoning models send parts instead of a text."""
    if isinstance(content, list):
        return "".join(_string(part.get("text")) for part in content if part.get("type") == "text")
    return content or ""


def _thoughts(content: str | list[dict[str, Any]] | None) -> str:
    thoughts = ""
    for part in content if isinstance(content, list) else ():
        inner = part.get("thinking")
        if isinstance(inner, list):
            thoughts += "".join(_string(item.get("text")) for item in inner if isinstance(item, dict))
        else:
            thoughts += _string(inner)
    return thoughts


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
