"""One answer as it grows, and what is known of it at its end."""

from __future__ import annotations

from typing import Any

import msgspec

from lollms_kernel.types import (
    Chunk,
    Finished,
    Notice,
    Progress,
    TextDelta,
    ThoughtDelta,
    TokenProbability,
    ToolCall,
    Usage,
)

STOP_TYPES = {"stop": "eos", "length": "limit", "tool_calls": "eos", "content_filter": "eos"}


class Choice:
    """Feed it the chunks of one generation."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.tokens: list[int] = []
        self.probabilities: list[TokenProbability] = []
        self.calls: list[ToolCall] = []
        self.notices: list[Notice] = []
        self.pieces = 0
        """How many deltas came: the number of tokens where nobody tells it."""
        self.prompt_tokens = 0
        """As far as it is known before the end."""
        self.finished: Finished | None = None

    def add(self, chunk: Chunk) -> None:
        """Take one more chunk."""
        match chunk:
            case TextDelta():
                self.pieces += 1
                self.texts.append(chunk.text)
                self.tokens += chunk.tokens
                self.probabilities += chunk.probabilities
            case ThoughtDelta():
                self.pieces += 1
                self.thoughts.append(chunk.text)
            case ToolCall():
                self.calls.append(chunk)
            case Notice():
                self.notices.append(chunk)
            case Progress():
                self.prompt_tokens = chunk.total
            case Finished():
                self.finished = chunk

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.texts)

    @property
    def thought(self) -> str:
        """All reasoning so far."""
        return "".join(self.thoughts)

    @property
    def engine(self) -> dict[str, Any]:
        """What an engine of llama-server's kind says of the finished answer."""
        found = None if self.finished is None else self.finished.metadata.get("engine")
        return found if isinstance(found, dict) else {}

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        if self.finished is not None and self.finished.usage is not None:
            return self.finished.usage.completion_tokens
        return len(self.tokens) or self.pieces

    @property
    def usage(self) -> Usage:
        """Tokens of the finished answer; counted by pieces where the binding does not tell."""
        told = None if self.finished is None else self.finished.usage
        return told or Usage(self.prompt_tokens, self.generated)

    @property
    def reason(self) -> str:
        """OpenAI's `finish_reason`."""
        if self.calls:
            return "tool_calls"
        return "stop" if self.finished is None else self.finished.reason

    @property
    def stop_type(self) -> str:
        """llama-server's: none, eos, word or limit."""
        told = self.engine.get("stop_type")
        return told if isinstance(told, str) else STOP_TYPES.get(self.reason, "none")

    def timings(self) -> dict[str, Any]:
        """llama-server's `timings`: the engine's own, or what the kernel measured."""
        told = self.engine.get("timings")
        if isinstance(told, dict):
            return told
        times = None if self.finished is None else self.finished.timings
        usage = self.usage
        fresh = max(usage.prompt_tokens - usage.cached_tokens, 0)
        first = (times and (times.prompt or times.first_chunk)) or 0.0
        generating = times.generate if times else None
        if generating is None and times is not None:
            generating = max((times.total or 0.0) - (times.first_chunk or 0.0), 0.0)
        return {
            "cache_n": usage.cached_tokens,
            **_rates("prompt", fresh, fresh, 1000 * first),
            **_rates(
                "predicted",
                usage.completion_tokens,
                max(usage.completion_tokens - 1, 0),
                1000 * (generating or 0.0),
            ),
        }

    def told(self) -> list[dict[str, Any]]:
        """What the server did differently from what was asked."""
        return [msgspec.to_builtins(notice) for notice in self.notices]


def _rates(name: str, count: int, timed: int, milliseconds: float) -> dict[str, Any]:
    """Count, time and rates; never infinite, never null."""
    seconds = milliseconds / 1000
    return {
        f"{name}_n": count,
        f"{name}_ms": round(milliseconds, 3),
        f"{name}_per_token_ms": round(milliseconds / timed, 6) if timed else 0.0,
        f"{name}_per_second": round(timed / seconds, 6) if timed and seconds > 0 else 0.0,
    }


def passing_timings(generated: int, seconds: float) -> dict[str, Any]:
    """`timings` of a part of a stream: how many tokens came since the first one."""
    return _rates("predicted", generated, max(generated - 1, 0), 1000 * seconds)
