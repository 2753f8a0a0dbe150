"""A fake OpenAI: its HTTP API under `/v1` on a real socket, with models that count words as tokens.

It can also be one of the servers that speak the same API with words of their own: vLLM, llama-server and FastGPT.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from .faults import Fault, garbage, refusal
from .forms import fields_of
from .openai_answers import (
    CREATED,
    SSE,
    OpenAIAnswer,
    Parts,
    Refused,
    chat_events,
    count_words,
    error_reply,
    split_words,
    sse,
    text_of,
    token_usage,
    whole_answer,
    workflow_events,
)
from .openai_media import images, speech, transcription
from .server import FakeServer, Received, Reply

__all__ = [
    "MODELS",
    "FakeOpenAI",
    "Flavour",
    "OpenAIAnswer",
    "OpenAIModel",
    "echo",
    "error_reply",
    "refused",
    "sse",
    "stream_error",
]

Flavour = Literal["openai", "vllm", "llama-server", "fastgpt"]

DIMENSIONS = 4

_OWNERS = {"openai": "system", "vllm": "vllm", "llama-server": "llamacpp", "fastgpt": "fastgpt"}
_CHAT_FIELDS = frozenset(
    "model messages stream stream_options temperature top_p n stop max_tokens max_completion_tokens presence_penalty "
    "frequency_penalty logit_bias logprobs top_logprobs user seed tools tool_choice parallel_tool_calls "
    "response_format reasoning_effort verbosity service_tier store metadata modalities audio prediction "
    "prompt_cache_key safety_identifier web_search_options functions function_call".split()
)
_REASONING_REFUSES = (
    "max_tokens",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
)


class OpenAIModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as `/v1/models` lists it; of `context_size` OpenAI says nothing there, the others do."""

    id: str
    makes: Literal["text", "image", "speech", "transcript", "vectors"] = "text"
    context_size: int = 8192
    reasons: bool = False
    extra: dict[str, Any] = {}
    """Fields that only some services list."""


MODELS = (
    OpenAIModel(id="gpt-4o-mini"),
    OpenAIModel(id="gpt-4o"),
    OpenAIModel(id="gpt-4o-audio-preview"),
    OpenAIModel(id="gpt-5-mini", reasons=True),
    OpenAIModel(id="gpt-3.5-turbo-instruct", context_size=32),
    OpenAIModel(id="text-embedding-3-small", makes="vectors"),
    OpenAIModel(id="tts-1", makes="speech"),
    OpenAIModel(id="whisper-1", makes="transcript"),
    OpenAIModel(id="gpt-4o-transcribe", makes="transcript"),
    OpenAIModel(id="dall-e-2", makes="image"),
    OpenAIModel(id="dall-e-3", makes="image"),
    OpenAIModel(id="gpt-image-2.5-flare", makes="image"),
    OpenAIModel(id="omni-moderation-latest"),
)


def echo(request: dict[str, Any]) -> OpenAIAnswer:
    """The text of the last user turn, or the prompt of `/v1/completions`."""
    if "messages" not in request:
        return OpenAIAnswer(content=request.get("prompt", ""))
    turns = [text_of(turn["content"]) for turn in request["messages"] if turn["role"] == "user"]
    return OpenAIAnswer(content=turns[-1] if turns else "")


class FakeOpenAI(FakeServer):
    """Chat, completions, embeddings, images, speech, transcripts and models; `answer` decides what models say.

    `flavour` chooses whose dialect it speaks. `reasoning_field` is where thoughts go, which OpenAI itself keeps for
    itself. With `api_key` set, others are refused.
    """

    def __init__(
        self,
        models: Iterable[OpenAIModel] = MODELS,
        *,
        answer: Callable[[dict[str, Any]], OpenAIAnswer] = echo,
        api_key: str | None = None,
        flavour: Flavour = "openai",
        reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content",
        transcript: str = "The quick brown fox jumps.",
    ) -> None:
        super().__init__()
        self.models = {model.id: model for model in models}
        self.answer = answer
        self.api_key = api_key
        self.flavour: Flavour = flavour
        self.reasoning_field = reasoning_field
        self.transcript = transcript
        self.prefix = "/api/v1" if flavour == "fastgpt" else "/v1"

    @property
    def base_url(self) -> str:
        """What goes into the setting `base_url`."""
        return self.url + self.prefix

    def reply(self, request: Received) -> Reply:
        """As the real servers route it."""
        authorization = request.headers.get("authorization", "")
        if self.api_key is not None and authorization != f"Bearer {self.api_key}":
            key = authorization.removeprefix("Bearer ")
            message = f"Incorrect API key provided: {key}. You can find your API key in your account."
            return error_reply(401, message, code="invalid_api_key")
        handler = self._routes().get((request.method, request.path))
        if handler is None:
            return error_reply(404, f"Invalid URL ({request.method} {request.path})")
        try:
            return handler(fields_of(request))
        except Refused as refused:
            return refused.reply
        except msgspec.DecodeError:
            return error_reply(400, "We could not parse the JSON body of your request.")

    def _routes(self) -> dict[tuple[str, str], Callable[[dict[str, Any]], Reply]]:
        routes: dict[tuple[str, str], Callable[[dict[str, Any]], Reply]] = {
            ("POST", f"{self.prefix}/chat/completions"): self._chat
        }
        if self.flavour == "fastgpt":
            return routes
        routes |= {
            ("GET", "/v1/models"): self._list,
            ("POST", "/v1/completions"): self._complete,
            ("POST", "/v1/embeddings"): self._embed,
            ("POST", "/v1/images/generations"): self._draw,
            ("POST", "/v1/images/edits"): self._edit,
            ("POST", "/v1/audio/speech"): self._speak,
            ("POST", "/v1/audio/transcriptions"): self._transcribe,
        }
        if self.flavour in ("vllm", "llama-server"):
            routes[("POST", "/tokenize")] = self._tokenize
            routes[("POST", "/detokenize")] = self._detokenize
        if self.flavour == "llama-server":
            routes[("GET", "/props")] = self._props
        return routes

    # --- models ---

    def _find(self, body: dict[str, Any], makes: str) -> OpenAIModel:
        name = body.get("model", "")
        if self.flavour == "fastgpt":  # a key belongs to one application, which has its own model
            return next(iter(self.models.values()))
        model = self.models.get(name)
        if model is None:
            message = f"The model `{name}` does not exist or you do not have access to it."
            raise Refused(404, message, code="model_not_found")
        if model.makes != makes:
            raise Refused(400, f"This model does not make {makes}.", param="model")
        return model

    def _list(self, _body: dict[str, Any]) -> Reply:
        return Reply.of({"object": "list", "data": [self._entry(model) for model in self.models.values()]})

    def _entry(self, model: OpenAIModel) -> dict[str, Any]:
        entry: dict[str, Any] = {"id": model.id, "object": "model", "created": CREATED}
        entry["owned_by"] = _OWNERS[self.flavour]
        if self.flavour == "vllm":
            entry |= {"root": model.id, "parent": None, "max_model_len": model.context_size}
        if self.flavour == "llama-server":
            meta = {"vocab_type": 2, "n_vocab": 151_936, "n_ctx_train": 4 * model.context_size, "n_embd": 896}
            entry["meta"] = {**meta, "n_params": 494_032_768, "size": 397_807_616}
        return {**entry, **model.extra}

    def _props(self, _body: dict[str, Any]) -> Reply:
        model = next(iter(self.models.values()))
        facts = {
            "default_generation_settings": {"n_ctx": model.context_size, "params": {}},
            "total_slots": 1,
            "chat_template": "{{ messages }}",
            "modalities": {"vision": True, "audio": False},
        }
        return Reply.of(facts)

    # --- text ---

    def _chat(self, body: dict[str, Any]) -> Reply:
        model = self._find(body, "text")
        if not body.get("messages"):
            raise Refused(400, "[] is too short - 'messages'", param="messages", code="empty_array")
        self._check(body, model)
        parts = Parts(body, self.answer(body), self.reasoning_field)
        prompt = count_words(" ".join(text_of(turn.get("content")) for turn in body["messages"]))
        if prompt > model.context_size:
            message = f"This model's maximum context length is {model.context_size} tokens."
            raise Refused(400, message, param="messages", code="context_length_exceeded")
        head = {"id": "chatcmpl-fake", "created": CREATED, "model": model.id}
        if not body.get("stream"):
            return Reply.of(whole_answer(head, parts, prompt))
        events = chat_events(
            head, parts, prompt, bool((body.get("stream_options") or {}).get("include_usage"))
        )
        if self.flavour == "fastgpt" and body.get("detail"):
            return Reply(headers=SSE, frames=workflow_events(events))
        return Reply(headers=SSE, frames=(*map(sse, events), b"data: [DONE]\n\n"))

    def _check(self, body: dict[str, Any], model: OpenAIModel) -> None:
        """What OpenAI refuses and the others let pass."""
        if self.flavour != "openai":
            return
        for name in body.keys() - _CHAT_FIELDS:
            raise Refused(400, f"Unrecognized request argument supplied: {name}", param=name)
        for name in _REASONING_REFUSES if model.reasons else ():
            if name in body:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                raise Refused(400, message, param=name, code="unsupported_parameter")
        if len(body.get("stop") or ()) > 4:
            raise Refused(400, "Invalid 'stop': array too long.", param="stop", code="array_above_max_length")
        pending: list[str] = []
        for turn in body["messages"]:
            if turn["role"] == "tool":
                if turn.get("tool_call_id") not in pending:
                    message = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                    raise Refused(400, message, param="messages")
                pending.remove(turn["tool_call_id"])
            elif pending:
                raise Refused(400, "An assistant message with 'tool_calls' must be followed by results.")
            pending += [call["id"] for call in turn.get("tool_calls") or ()]

    def _complete(self, body: dict[str, Any]) -> Reply:
        model = self._find(body, "text")
        parts = Parts(body, self.answer(body), self.reasoning_field)
        head = {"id": "cmpl-fake", "object": "text_completion", "created": CREATED, "model": model.id}
        usage = token_usage(count_words(body["prompt"]), parts.tokens)
        choice = {"index": 0, "text": parts.content, "logprobs": None, "finish_reason": parts.reason}
        if not body.get("stream"):
            return Reply.of({**head, "choices": [choice], "usage": usage})
        events = [
            {**head, "choices": [{**choice, "text": word, "finish_reason": None}]}
            for word in split_words(parts.content)
        ]
        events.append({**head, "choices": [{**choice, "text": ""}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            events.append({**head, "choices": [], "usage": usage})
        return Reply(headers=SSE, frames=(*map(sse, events), b"data: [DONE]\n\n"))

    def _embed(self, body: dict[str, Any]) -> Reply:
        model = self._find(body, "vectors")
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not all(texts):
            raise Refused(400, "'$.input' is invalid.", param="input")
        data: list[dict[str, Any]] = []
        for index, text in enumerate(texts):
            vector: Any = [len(text) / 100, float(index), 0.25, -0.5]
            if body.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode()
            data.insert(0, {"object": "embedding", "index": index, "embedding": vector})
        usage = {"prompt_tokens": sum(map(count_words, texts)), "total_tokens": sum(map(count_words, texts))}
        return Reply.of({"object": "list", "data": data, "model": model.id, "usage": usage})

    # --- tokens, which only some servers give: one for each byte, 256 before the first ---

    def _tokenize(self, body: dict[str, Any]) -> Reply:
        if self.flavour == "llama-server":
            first = [256] if body.get("add_special") else []
            return Reply.of({"tokens": [*first, *body.get("content", "").encode()]})
        model = self._find(body, "text")
        first = [256] if body.get("add_special_tokens", True) else []
        tokens = [*first, *body["prompt"].encode()]
        return Reply.of({"count": len(tokens), "max_model_len": model.context_size, "tokens": tokens})

    def _detokenize(self, body: dict[str, Any]) -> Reply:
        text = bytes(token for token in body["tokens"] if token < 256).decode("utf-8", "replace")
        return Reply.of({"content" if self.flavour == "llama-server" else "prompt": text})

    # --- media ---

    def _draw(self, body: dict[str, Any]) -> Reply:
        return images(body, self._find(body, "image").id, "image_generation", self.url)

    def _edit(self, body: dict[str, Any]) -> Reply:
        return images(body, self._find(body, "image").id, "image_edit", self.url)

    def _speak(self, body: dict[str, Any]) -> Reply:
        self._find(body, "speech")
        return speech(body)

    def _transcribe(self, body: dict[str, Any]) -> Reply:
        return transcription(body, self._find(body, "transcript").id, self.transcript)


# --- faults of this protocol ------------------------------------------------------------------------------------


def stream_error(after: int, message: str = "The server had an error.", **fields: Any) -> Fault:
    """An event `{"error": …}` in the middle of a stream."""
    return garbage(after, sse({"error": {"message": message, "type": "server_error", **fields}}))


def refused(status: int, message: str, path: str = "", *, code: str | None = None, **headers: str) -> Fault:
    """An HTTP error with OpenAI's body; `retry_after="1"` becomes the header `retry-after: 1`."""
    body = b"".join(error_reply(status, message, code=code).frames)
    return refusal(status, body, path, content_type="application/json", **headers)
