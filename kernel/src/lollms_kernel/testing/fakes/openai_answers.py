"""What a fake OpenAI's models say, in the shapes of its API: whole, or event by event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from .server import Reply

SSE = {"content-type": "text/event-stream; charset=utf-8"}
CREATED = 1_767_323_045


class OpenAIAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says."""

    content: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[dict[str, str], ...] = ()
    """`{"name": …, "arguments": JSON text}`."""
    finish_reason: str | None = None
    """Instead of the one that follows from the rest."""


class Parts:
    """An answer in pieces, cut by the limit of tokens and by stop texts."""

    def __init__(self, body: dict[str, Any], answer: OpenAIAnswer, reasoning_field: str) -> None:
        content = answer.content
        stops = body.get("stop") or ()
        for stop in [stops] if isinstance(stops, str) else stops:
            content = content.partition(stop)[0]
        words, thoughts = split_words(content), split_words(answer.reasoning)
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or 1 << 30
        cut = len(thoughts) + len(words) > limit
        thoughts = thoughts[:limit]
        words = words[: limit - len(thoughts)]
        self.content = "".join(words)
        self.tokens = len(words) + len(thoughts)
        self.deltas: list[dict[str, Any]] = [{reasoning_field: word} for word in thoughts]
        self.deltas += [{"content": word} for word in words]
        if answer.refusal:
            self.deltas.append({"refusal": answer.refusal})
        self.calls = [] if cut else list(answer.tool_calls)
        for index, call in enumerate(self.calls):
            self.deltas += _call_deltas(index, call)
        natural = "length" if cut else "tool_calls" if self.calls else "stop"
        self.reason = answer.finish_reason or natural


def _call_deltas(index: int, call: dict[str, str]) -> Iterator[dict[str, Any]]:
    """First the name, then the arguments in two halves, as the real server sends them."""
    arguments = call["arguments"]
    half = len(arguments) // 2
    first = {
        "id": f"call_fake{index}",
        "type": "function",
        "function": {"name": call["name"], "arguments": ""},
    }
    yield {"tool_calls": [{"index": index, **first}]}
    for piece in (arguments[:half], arguments[half:]):
        yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def chat_events(head: dict[str, Any], parts: Parts, prompt: int, counted: bool) -> Iterator[dict[str, Any]]:
    """An answer as the events of `/v1/chat/completions`, without the `[DONE]` that ends them."""
    head = {**head, "object": "chat.completion.chunk", "system_fingerprint": "fp_fake"}

    def event(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}

    yield event({"role": "assistant", "content": "", "refusal": None})
    yield from map(event, parts.deltas)
    yield event({}, parts.reason)
    if counted:
        yield {**head, "choices": [], "usage": token_usage(prompt, parts.tokens)}


def whole_answer(head: dict[str, Any], parts: Parts, prompt: int) -> dict[str, Any]:
    """An answer in one piece."""
    message: dict[str, Any] = {"role": "assistant", "content": parts.content, "refusal": None}
    for delta in parts.deltas:
        for name in ("reasoning_content", "reasoning"):
            if name in delta:
                message[name] = message.get(name, "") + delta[name]
    if parts.calls:
        message["tool_calls"] = [
            {"id": f"call_fake{index}", "type": "function", "function": call}
            for index, call in enumerate(parts.calls)
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": parts.reason}
    usage = token_usage(prompt, parts.tokens)
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}


def workflow_events(events: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """FastGPT with `detail`: what its nodes do is told in named events, before and after the answer's."""
    yield sse({"status": "running", "name": "AI Chat"}, "flowNodeStatus")
    for event in events:
        yield sse(event, "answer")
    yield b"event: answer\ndata: [DONE]\n\n"
    yield b"event: flowResponses\n" + b"data: " + msgspec.json.encode([{"moduleName": "AI Chat"}]) + b"\n\n"


def token_usage(prompt: int, completion: int) -> dict[str, Any]:
    """What an answer cost."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def sse(value: Any, event: str | None = None) -> bytes:
    """One server-sent event."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + msgspec.json.encode(value) + b"\n\n"


def text_of(content: Any) -> str:
    """The text of a turn, whose content may be parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


def split_words(text: str) -> list[str]:
    """Words with the space before them."""
    return [piece for n, word in enumerate(text.split(" ")) if (piece := word if n == 0 else f" {word}")]


def count_words(text: str) -> int:
    """Our tokens."""
    return len(text.split())


# --- refusals ---------------------------------------------------------------------------------------------------


def error_reply(
    status: int, message: str, *, code: str | None = None, param: str | None = None, kind: str | None = None
) -> Reply:
    """An error in OpenAI's shape."""
    kind = kind or ("invalid_request_error" if status < 500 else "server_error")
    return Reply.of({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


class Refused(Exception):
    """Raised instead of a reply, by whatever part of a request is wrong."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.reply = error_reply(status, message, code=code, param=param)
