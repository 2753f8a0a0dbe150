"""A fake Gemini: Google's Generative Language API (`/v1beta`) on a real socket, with models that count words as tokens.

It speaks to both of Google's libraries: JSON with names in camelCase or snake_case comes in, streams go out as
server-sent events (`alt=sse`) or as one JSON array that grows.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ...dummy import small_png
from .faults import Fault, garbage, refusal
from .gemini_answers import (
    JSON,
    SSE,
    GeminiAnswer,
    answer_events,
    array,
    blocked_prompt,
    camel,
    count_tokens,
    echo,
    error_body,
    error_reply,
    sse,
    vector,
)
from .gemini_models import MODELS, GeminiModel, objection
from .server import FakeServer, Received, Reply

PAGE = 50


class FakeGemini(FakeServer):
    """Content (whole, as events and as an array), tokens, vectors, Imagen's predict and listings.

    `answer` decides what models say. With `api_key` set, others are refused.
    """

    def __init__(
        self,
        models: Iterable[GeminiModel] = MODELS,
        *,
        answer: Callable[[dict[str, Any]], GeminiAnswer] = echo,
        api_key: str | None = None,
    ) -> None:
        super().__init__()
        self.models = {model.name: model for model in models}
        self.answer = answer
        self.api_key = api_key

    def reply(self, request: Received) -> Reply:
        """As the real service routes it."""
        against = self._against_key(request)
        if against is not None:
            return against
        version, _, path = request.path.lstrip("/").partition("/")
        if version not in ("v1beta", "v1") or not path.startswith("models"):
            return Reply(status=404, headers={"content-type": "text/html"}, frames=(b"<!DOCTYPE html>404",))
        name, _, method = path.removeprefix("models").removeprefix("/").partition(":")
        if request.method == "GET":
            return self._list(request) if not name else self._get(name)
        try:
            body = camel(request.json)
        except msgspec.DecodeError:
            return error_reply(400, "Invalid JSON payload received. Unexpected end of string.")
        model = self.models.get(name)
        handler = self._methods().get(method)
        known = {"streamGenerateContent": "generateContent", "batchEmbedContents": "embedContent"}
        if model is None or handler is None or known.get(method, method) not in model.methods:
            return error_reply(
                404,
                f"models/{name} is not found for API version v1beta, or is not supported for {method}. Call "
                "ListModels to see the list of available models and their supported methods.",
            )
        return handler(model, body, request)

    def _methods(self) -> dict[str, Callable[[GeminiModel, dict[str, Any], Received], Reply]]:
        return {
            "generateContent": self._generate,
            "streamGenerateContent": self._stream,
            "countTokens": self._count,
            "embedContent": self._embed,
            "batchEmbedContents": self._embed,
            "predict": self._predict,
        }

    def _against_key(self, request: Received) -> Reply | None:
        given = request.headers.get("x-goog-api-key") or (request.query.get("key") or [""])[0]
        if not given:
            message = "Method doesn't allow unregistered callers (callers without established identity)."
            return error_reply(403, message)
        if self.api_key is not None and given != self.api_key:
            return error_reply(
                400, "API key not valid. Please pass a valid API key.", reason="API_KEY_INVALID"
            )
        return None

    # --- models ---

    def _list(self, request: Received) -> Reply:
        """One page; a token is the number of the first model."""
        start = int((request.query.get("pageToken") or ["0"])[0])
        size = int((request.query.get("pageSize") or [str(PAGE)])[0])
        every = list(self.models.values())
        more = {"nextPageToken": str(start + size)} if start + size < len(every) else {}
        return Reply.of({"models": [model.described for model in every[start : start + size]], **more})

    def _get(self, name: str) -> Reply:
        model = self.models.get(name)
        if model is None:
            return error_reply(404, f"Model is not found: models/{name} for api version v1beta")
        return Reply.of(model.described)

    # --- content ---

    def _generate(self, model: GeminiModel, body: dict[str, Any], _request: Received) -> Reply:
        events = self._events(model, body)
        if isinstance(events, Reply):
            return events
        whole: dict[str, Any] = {}
        parts: list[dict[str, Any]] = []
        for event in events:
            whole.update(event)
            for candidate in event.get("candidates", ()):
                parts += candidate.get("content", {}).get("parts", ())
        if parts:
            whole["candidates"][0]["content"] = {"parts": parts, "role": "model"}
        return Reply.of(whole)

    def _stream(self, model: GeminiModel, body: dict[str, Any], request: Received) -> Reply:
        events = self._events(model, body)
        if isinstance(events, Reply):
            return events
        if request.query.get("alt") == ["sse"]:
            return Reply(headers=SSE, frames=(sse(event) for event in events))
        return Reply(headers=JSON, frames=array(events))

    def _events(self, model: GeminiModel, body: dict[str, Any]) -> Iterable[dict[str, Any]] | Reply:
        try:
            tokens = count_tokens(body)
        except (binascii.Error, ValueError):
            return error_reply(400, 'Base64 decoding failed for "…"')
        against = objection(model, body, tokens)
        if against is not None:
            return error_reply(400, against)
        answer = self.answer(body)
        if answer.blocked:
            return [blocked_prompt(answer, tokens)]
        return answer_events(model, body, answer, tokens)

    def _count(self, _model: GeminiModel, body: dict[str, Any], _request: Received) -> Reply:
        asked = body.get("generateContentRequest", body)
        if not asked.get("contents"):
            return error_reply(400, "* CountTokensRequest.contents: contents is not specified")
        return Reply.of({"totalTokens": count_tokens(asked)})

    # --- vectors and Imagen ---

    def _embed(self, _model: GeminiModel, body: dict[str, Any], _request: Received) -> Reply:
        if "requests" not in body:
            return Reply.of({"embedding": {"values": vector(body["content"])}})
        if len(body["requests"]) > 100:
            return error_reply(
                400, "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch"
            )
        vectors = [{"values": vector(one["content"])} for one in body["requests"]]
        return Reply.of({"embeddings": vectors})

    def _predict(self, _model: GeminiModel, body: dict[str, Any], _request: Received) -> Reply:
        wanted = body["parameters"].get("sampleCount", 4)
        if not 1 <= wanted <= 4:
            return error_reply(400, "sampleCount must be between 1 and 4, inclusive")
        prompt = body["instances"][0]["prompt"]
        answer = self.answer({"contents": [{"parts": [{"text": prompt}]}], **body})
        if answer.blocked:
            return Reply.of({})
        images = [
            {"mimeType": "image/png", "bytesBase64Encoded": base64.b64encode(small_png(number)).decode()}
            for number in range(min(wanted, answer.images) if answer.harm else wanted)
        ]
        reasons = [{"raiFilteredReason": "Unable to show generated images."}] * (wanted - len(images))
        return Reply.of({"predictions": [*images, *reasons]})


# --- faults of this protocol ------------------------------------------------------------------------------------


def refused(
    status: int,
    message: str,
    path: str = "",
    *,
    reason: str | None = None,
    retry_delay: str | None = None,
    quota: str | None = None,
    **headers: str,
) -> Fault:
    """An HTTP error with Google's body: `reason` of its ErrorInfo, `retry_delay` such as `7s`, id of the `quota`."""
    body = error_body(status, message, reason=reason, retry_delay=retry_delay, quota=quota)
    return refusal(status, msgspec.json.encode(body), path, **headers)


def stream_error(after: int, status: int = 503, message: str = "The model is overloaded.") -> Fault:
    """An event `{"error": …}` in the middle of a stream of events."""
    return garbage(after, sse(error_body(status, message)), ":stream")
