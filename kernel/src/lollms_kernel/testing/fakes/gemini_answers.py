"""What the fake Gemini sends: answers as streams of events, usage, errors, and the protocol's names."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ...dummy import small_png
from .gemini_models import GeminiModel
from .server import Reply

SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json; charset=UTF-8"}
DIMENSIONS = 4
SIGNATURE = "c2lnbmVk"
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_FREE_FORM = frozenset(
    "args response parameters parametersJsonSchema responseSchema responseJsonSchema metadata".split()
)
"""What holds names of the client's own."""


class GeminiAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says. `finish` and `blocked` are the protocol's words; `blocked` refuses the prompt."""

    text: str = ""
    thoughts: str = ""
    calls: tuple[dict[str, Any], ...] = ()
    """`{"name": …, "args": {…}}`."""
    images: int = 1
    """How many, of models that draw."""
    finish: str = "STOP"
    blocked: str | None = None
    harm: str | None = None
    """The category for which something was blocked."""


def echo(body: dict[str, Any]) -> GeminiAnswer:
    """The text of the last user turn."""
    turns = [content for content in body["contents"] if content.get("role", "user") == "user"]
    return GeminiAnswer(text="".join(part.get("text", "") for part in turns[-1]["parts"]) if turns else "")


# --- streams ---


def answer_events(
    model: GeminiModel, body: dict[str, Any], answer: GeminiAnswer, tokens: int
) -> Iterator[dict[str, Any]]:
    """The answer word by word, cut by `maxOutputTokens` and `stopSequences`; the last event has the reason."""
    config = body.get("generationConfig") or {}
    text = answer.text
    for stop in config.get("stopSequences") or ():
        text = text.partition(stop)[0]
    thinking = config.get("thinkingConfig") or {}
    thoughts = answer.thoughts.split() if model.thinks and thinking.get("thinkingBudget") != 0 else []
    shown = thinking.get("includeThoughts", False)
    pieces: list[tuple[bool, dict[str, Any]]] = [
        (True, {"text": f"{word} ", "thought": True}) for word in thoughts
    ]
    pieces += [(False, {"text": word}) for word in split_words(text)]
    limit = config.get("maxOutputTokens", model.output_token_limit)
    finish = "MAX_TOKENS" if len(pieces) > limit else answer.finish
    pieces = pieces[:limit]
    if finish != "MAX_TOKENS":
        pieces += [(False, part) for part in _special_parts(model, answer)]
    counted = {"thoughts": 0, "answer": 0}
    last = len(pieces) - 1
    for number, (is_thought, part) in enumerate(pieces):
        counted["thoughts" if is_thought else "answer"] += 1
        if is_thought and not shown and number != last:
            continue
        event = _candidate([] if is_thought and not shown else [part])
        if number == last:
            event["candidates"][0].update(_ending(finish, answer))
        yield {**event, **_usage(tokens, **counted)}
    if not pieces:
        yield {"candidates": [{"index": 0, **_ending(finish, answer)}], **_usage(tokens)}


def _special_parts(model: GeminiModel, answer: GeminiAnswer) -> Iterator[dict[str, Any]]:
    for call in answer.calls:
        yield {"functionCall": call, **({"thoughtSignature": SIGNATURE} if model.signs else {})}
    if model.draws and answer.finish == "STOP":
        for number in range(answer.images):
            data = base64.b64encode(small_png(number)).decode()
            yield {"inlineData": {"mimeType": "image/png", "data": data}}


def _candidate(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}]}


def _ending(finish: str, answer: GeminiAnswer) -> dict[str, Any]:
    return {"finishReason": finish, **_ratings(answer)}


def blocked_prompt(answer: GeminiAnswer, tokens: int) -> dict[str, Any]:
    """The only event where the prompt is refused for safety."""
    return {"promptFeedback": {"blockReason": answer.blocked, **_ratings(answer)}, **_usage(tokens)}


def _ratings(answer: GeminiAnswer) -> dict[str, Any]:
    if not answer.harm:
        return {}
    return {"safetyRatings": [{"category": answer.harm, "probability": "HIGH", "blocked": True}]}


def _usage(prompt: int, answer: int = 0, thoughts: int = 0) -> dict[str, Any]:
    usage = {"promptTokenCount": prompt, "totalTokenCount": prompt + answer + thoughts}
    if answer:
        usage["candidatesTokenCount"] = answer
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    return {"usageMetadata": usage, "modelVersion": "fake-001", "responseId": "fake"}


def sse(value: dict[str, Any]) -> bytes:
    """A server-sent event, with line ends as the real service sends them."""
    return b"data: " + msgspec.json.encode(value) + b"\r\n\r\n"


def array(events: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """The events as one JSON array, which comes piece by piece."""
    opening = b"["
    for event in events:
        yield opening + msgspec.json.format(msgspec.json.encode(event), indent=2)
        opening = b",\r\n"
    yield b"]" if opening == b",\r\n" else b"[]"


def camel(value: Any, inside: str = "") -> Any:
    """The same JSON with the protocol's names in camelCase; names of the client's own stay."""
    if isinstance(value, list):
        return [camel(item, inside) for item in value]
    if not isinstance(value, dict) or inside in _FREE_FORM:
        return value
    return {(name := _camel_name(key)): camel(item, name) for key, item in value.items()}


def _camel_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def split_words(text: str) -> list[str]:
    """Words with the space before them."""
    return [piece for n, word in enumerate(text.split(" ")) if (piece := word if n == 0 else f" {word}")]


def count_tokens(body: dict[str, Any]) -> int:
    """Words, and 258 for each image or other medium, as the real service counts small images."""
    contents = [*(body.get("contents") or ()), body.get("systemInstruction") or {}]
    return sum(_partcount_tokens(part) for content in contents for part in content.get("parts") or ())


def _partcount_tokens(part: dict[str, Any]) -> int:
    if "inlineData" in part:
        data = part["inlineData"]["data"].replace("-", "+").replace("_", "/")
        base64.b64decode(data, validate=True)
        return 258
    return len(str(part.get("text", "")).split())


def vector(content: dict[str, Any]) -> list[float]:
    """A unit vector that depends on the text."""
    text = "".join(part.get("text", "") for part in content.get("parts") or ())
    values = [byte / 255 + 0.001 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSIONS]]
    length = sum(value * value for value in values) ** 0.5
    return [value / length for value in values]


# --- errors ---


def error_body(
    status: int,
    message: str,
    *,
    reason: str | None = None,
    retry_delay: str | None = None,
    quota: str | None = None,
) -> dict[str, Any]:
    """The body of an error as `google.rpc.Status`."""
    kind = "type.googleapis.com/google.rpc."
    details: list[dict[str, Any]] = []
    if reason:
        details.append({"@type": f"{kind}ErrorInfo", "reason": reason, "domain": "googleapis.com"})
    if quota:
        details.append({"@type": f"{kind}QuotaFailure", "violations": [{"quotaId": quota}]})
    if retry_delay:
        details.append({"@type": f"{kind}RetryInfo", "retryDelay": retry_delay})
    error = {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}
    return {"error": {**error, **({"details": details} if details else {})}}


def error_reply(status: int, message: str, reason: str | None = None) -> Reply:
    """The same as an answer."""
    return Reply.of(error_body(status, message, reason=reason), status)
