"""From the parts that Ollama streams to chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from lollms_kernel.types import (
    Chunk,
    Finished,
    Notice,
    TextDelta,
    ThoughtDelta,
    Timings,
    ToolCall,
    Usage,
)

from .prompt import Prompt

if TYPE_CHECKING:
    from ollama import ChatResponse, GenerateResponse

NANO = 1e-9


class Answer:
    """Reads one stream part by part."""

    def __init__(self, prompt: Prompt, model: str, request_id: str) -> None:
        self._prompt = prompt
        self._model = model
        self._request_id = request_id
        self._block = 0
        self._thinking = False
        self._calls = 0

    def read(self, part: ChatResponse | GenerateResponse) -> Iterator[Chunk]:
        """The chunks of one part; the last part gives Finished."""
        message: Any = getattr(part, "message", part)
        if message.thinking:
            self._thinking = True
            yield ThoughtDelta(message.thinking, self._block)
        text = getattr(message, "content", None) or getattr(message, "response", None)
        if text:
            yield from self._end_thought("closed")
            yield TextDelta(text)
        for call in getattr(message, "tool_calls", None) or ():
            yield from self._end_thought("closed")
            yield self._call(call)
        if part.done:
            yield from self._end_thought("incomplete" if part.done_reason == "length" else "closed")
            yield from self._deviations(part)
            yield self._finished(part)

    def _end_thought(self, end: Any) -> Iterator[Chunk]:
        if self._thinking:
            yield ThoughtDelta("", self._block, end)
            self._thinking = False
            self._block += 1

    def _call(self, call: Any) -> ToolCall:
        """Ids are ours: Ollama wants none back, and its library drops those that it gives."""
        index, self._calls = self._calls, self._calls + 1
        arguments = msgspec.json.encode(dict(call.function.arguments)).decode()
        return ToolCall(f"call_{self._request_id}_{index}", call.function.name, arguments, index)

    def _deviations(self, part: ChatResponse | GenerateResponse) -> Iterator[Notice]:
        """Older versions cut prompts without saying so, and some cut answers; the counts tell."""
        prompt_tokens, words = part.prompt_eval_count or 0, self._prompt.words
        if 0 < prompt_tokens < words:
            yield Notice(
                "context_truncated",
                f"Ollama read {prompt_tokens} tokens of a prompt of at least {words}: it probably cut what did not "
                "fit. Raise `num_ctx` of the instance or the parameter `context_size`.",
                {"prompt_tokens": prompt_tokens, "at_least": words},
            )
        limit = self._prompt.arguments["options"].get("num_predict", -1)
        tokens = part.eval_count or 0
        if part.done_reason == "length" and tokens and (limit < 0 or tokens < limit):
            yield Notice(
                "context_full",
                f"The answer ends where the context of '{self._model}' is full.",
                {"prompt_tokens": prompt_tokens, "completion_tokens": tokens},
            )

    def _finished(self, part: ChatResponse | GenerateResponse) -> Finished:
        metadata: dict[str, Any] = {"model": self._model}
        if part.eval_count and part.eval_duration:
            metadata["tokens_per_second"] = round(part.eval_count / (part.eval_duration * NANO), 1)
        reason = "length" if part.done_reason == "length" else "tool_calls" if self._calls else "stop"
        return Finished(
            reason=reason,
            usage=Usage(part.prompt_eval_count or 0, part.eval_count or 0),
            timings=Timings(
                load=_seconds(part.load_duration),
                prompt=_seconds(part.prompt_eval_duration),
                generate=_seconds(part.eval_duration),
            ),
            metadata=metadata,
        )


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds * NANO
