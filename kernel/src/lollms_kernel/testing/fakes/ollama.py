"""A fake Ollama: its native API under `/api` on a real socket, with models that count words as tokens."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from .faults import Fault, garbage, refusal
from .server import FakeServer, Received, Reply

NDJSON = {"content-type": "application/x-ndjson"}
CREATED = "2026-01-02T03:04:05.678901234Z"
DEFAULT_NUM_CTX = 4096
EMBEDDING_LENGTH = 4


class OllamaModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as `/api/tags` and `/api/show` describe it."""

    name: str
    capabilities: tuple[str, ...] = ("completion", "tools")
    family: str = "llama"
    parameter_size: str = "1.2B"
    quantization_level: str = "Q4_K_M"
    size: int = 1_321_098_329
    context_length: int = 8192
    parameters: dict[str, Any] = {}
    """What its Modelfile sets, e.g. `num_ctx`."""
    template: str = "{{ .Prompt }}"
    license: str = "Apache-2.0"

    @property
    def digest(self) -> str:
        """Changes with everything else."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    @property
    def details(self) -> dict[str, Any]:
        """The part that listing and description share."""
        return {
            "parent_model": "",
            "format": "gguf",
            "family": self.family,
            "families": [self.family, "clip"] if "vision" in self.capabilities else [self.family],
            "parameter_size": self.parameter_size,
            "quantization_level": self.quantization_level,
        }


MODELS = (
    OllamaModel(name="llama3.2:latest"),
    OllamaModel(name="llava:7b", capabilities=("completion", "vision"), parameter_size="7.2B"),
    OllamaModel(name="qwen3:4b", family="qwen3", capabilities=("completion", "tools", "thinking")),
    OllamaModel(name="tiny-context:1b", capabilities=("completion",), parameters={"num_ctx": 32}),
    OllamaModel(name="all-minilm:latest", family="bert", capabilities=("embedding",), context_length=256),
)


class OllamaAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says."""

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    """`{"name": …, "arguments": {…}}`."""


def echo(request: dict[str, Any]) -> OllamaAnswer:
    """The last user turn, or the prompt of `/api/generate`."""
    if "messages" not in request:
        return OllamaAnswer(content=request.get("prompt", ""))
    turns = [turn.get("content", "") for turn in request["messages"] if turn["role"] == "user"]
    return OllamaAnswer(content=turns[-1] if turns else "")


class FakeOllama(FakeServer):
    """Chat, generate, embed, tags, show, ps, pull, delete and version; `answer` decides what models say.

    `honours_truncate` false makes it an older version, which knows neither `truncate` nor `shift`. `library` maps
    names that can be pulled to the sizes of their layers. With `api_key` set, others are refused.
    """

    def __init__(
        self,
        models: Iterable[OllamaModel] = MODELS,
        *,
        answer: Callable[[dict[str, Any]], OllamaAnswer] = echo,
        api_key: str | None = None,
        honours_truncate: bool = True,
    ) -> None:
        super().__init__()
        self.models = {model.name: model for model in models}
        self.answer = answer
        self.api_key = api_key
        self.honours_truncate = honours_truncate
        self.library: dict[str, tuple[int, ...]] = {"tiny:latest": (3_000_000, 1_000)}
        self.loaded: dict[str, int] = {}
        """Model to the context size that it was loaded with."""

    def reply(self, request: Received) -> Reply:
        """As the real server routes it."""
        if self.api_key is not None and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return _error(401, "unauthorized")
        if (request.method, request.path) in (("GET", "/"), ("HEAD", "/")):
            return Reply(
                headers={"content-type": "text/plain; charset=utf-8"}, frames=(b"Ollama is running",)
            )
        handler = self._routes().get((request.method, request.path))
        if handler is None:
            return Reply(status=404, headers={"content-type": "text/plain"}, frames=(b"404 page not found",))
        try:
            return handler(request.json if request.body else {})
        except msgspec.DecodeError:
            return _error(400, "invalid character 'x' looking for beginning of value")

    def _routes(self) -> dict[tuple[str, str], Callable[[dict[str, Any]], Reply]]:
        return {
            ("GET", "/api/version"): lambda _: Reply.of({"version": "0.13.0"}),
            ("GET", "/api/tags"): self._tags,
            ("GET", "/api/ps"): self._ps,
            ("POST", "/api/show"): self._show,
            ("POST", "/api/chat"): self._chat,
            ("POST", "/api/generate"): self._generate,
            ("POST", "/api/embed"): self._embed,
            ("POST", "/api/pull"): self._pull,
            ("DELETE", "/api/delete"): self._delete,
        }

    # --- models ---

    def _find(self, name: str) -> OllamaModel | None:
        wanted = (name if ":" in name else f"{name}:latest").casefold()
        return next((model for known, model in self.models.items() if known.casefold() == wanted), None)

    def _tags(self, _body: dict[str, Any]) -> Reply:
        return Reply.of(
            {
                "models": [
                    {
                        "name": model.name,
                        "model": model.name,
                        "modified_at": CREATED,
                        "size": model.size,
                        "digest": model.digest,
                        "details": model.details,
                    }
                    for model in self.models.values()
                ]
            }
        )

    def _show(self, body: dict[str, Any]) -> Reply:
        model = self._find(body["model"])
        if model is None:
            return _not_found(body["model"])
        parameters = [f"{name:<30} {value!r}" for name, value in model.parameters.items()]
        return Reply.of(
            {
                "license": model.license,
                "modelfile": f'# Modelfile generated by "ollama show"\nFROM {model.name}\n',
                "parameters": "\n".join(parameters),
                "template": model.template,
                "details": model.details,
                "model_info": {
                    "general.architecture": model.family,
                    "general.parameter_count": 1_235_814_432,
                    f"{model.family}.context_length": model.context_length,
                    f"{model.family}.embedding_length": EMBEDDING_LENGTH,
                    "tokenizer.ggml.tokens": [],
                },
                "capabilities": list(model.capabilities),
                "modified_at": CREATED,
            }
        )

    def _ps(self, _body: dict[str, Any]) -> Reply:
        running = [
            {
                "name": name,
                "model": name,
                "size": model.size,
                "digest": model.digest,
                "details": model.details,
                "expires_at": "2318-04-12T23:48:31.123456789+02:00",
                "size_vram": model.size // 2,
                "context_length": num_ctx,
            }
            for name, num_ctx in self.loaded.items()
            if (model := self.models.get(name))
        ]
        return Reply.of({"models": running})

    def _delete(self, body: dict[str, Any]) -> Reply:
        model = self._find(body["model"])
        if model is None:
            return _not_found(body["model"])
        del self.models[model.name]
        return Reply()

    def _pull(self, body: dict[str, Any]) -> Reply:
        name = body["model"] if ":" in body["model"] else f"{body['model']}:latest"
        return Reply(headers=NDJSON, frames=map(_line, self._pulling(name)))

    def _pulling(self, name: str) -> Iterator[dict[str, Any]]:
        yield {"status": "pulling manifest"}
        if name not in self.library:
            yield {"error": "pull model manifest: file does not exist"}
            return
        for number, total in enumerate(self.library[name]):
            digest = f"sha256:{number:064x}"
            part = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": total}
            yield part
            yield from ({**part, "completed": total * quarter // 4} for quarter in range(1, 5))
        for status in ("verifying sha256 digest", "writing manifest"):
            yield {"status": status}
        self.models[name] = OllamaModel(name=name)
        yield {"status": "success"}

    # --- generation ---

    def _chat(self, body: dict[str, Any]) -> Reply:
        model = self._find(body["model"])
        refused = self._refused(model, body, "chat")
        if refused is not None or model is None:
            return refused or _not_found(body["model"])
        if not body.get("messages"):
            return self._load(model, body, {"message": {"role": "assistant", "content": ""}})
        fitted = self._fit(model, body)
        if isinstance(fitted, Reply):
            return fitted
        prompt_tokens, turns = fitted
        parts = _parts(body, self.answer({**body, "messages": turns}), self._room(model, body, prompt_tokens))
        frames = ({"message": {"role": "assistant", **part}} for part in parts.pieces)
        last = {"message": {"role": "assistant", "content": ""}}
        return _stream(body, model, frames, last, prompt_tokens, parts)

    def _generate(self, body: dict[str, Any]) -> Reply:
        model = self._find(body["model"])
        refused = self._refused(model, body, "generate")
        if refused is not None or model is None:
            return refused or _not_found(body["model"])
        if not body.get("prompt"):
            return self._load(model, body, {"response": ""})
        if body.get("raw") and (body.get("system") or body.get("template") or body.get("context")):
            return _error(400, "raw mode does not support template, system, or context")
        fitted = self._fit(model, body)
        if isinstance(fitted, Reply):
            return fitted
        parts = _parts(body, self.answer(body), self._room(model, body, fitted[0]))
        frames = (
            {
                "response": part.get("content", ""),
                **({"thinking": part["thinking"]} if "thinking" in part else {}),
            }
            for part in parts.pieces
        )
        last = {"response": "", **({} if body.get("raw") else {"context": [1, 2, 3]})}
        return _stream(body, model, frames, last, fitted[0], parts)

    def _refused(self, model: OllamaModel | None, body: dict[str, Any], what: str) -> Reply | None:
        if model is None:
            return _not_found(body["model"])
        if "completion" not in model.capabilities:
            return _error(400, f'"{body["model"]}" does not support {what}')
        if body.get("tools") and "tools" not in model.capabilities:
            return _error(400, f"registry.ollama.ai/library/{model.name} does not support tools")
        if body.get("think") and "thinking" not in model.capabilities:
            return _error(400, f'"{body["model"]}" does not support thinking')
        for image in _images(body):
            try:
                base64.b64decode(image, validate=True)
            except (binascii.Error, ValueError):
                return _error(400, "illegal base64 data at input byte 0")
        return None

    def _load(self, model: OllamaModel, body: dict[str, Any], empty: dict[str, Any]) -> Reply:
        unloading = body.get("keep_alive") in (0, "0", "0s")
        if unloading:
            self.loaded.pop(model.name, None)
        else:
            self.loaded[model.name] = self._num_ctx(model, body)
        reason = "unload" if unloading else "load"
        facts = {"model": body["model"], "created_at": CREATED, "done": True, "done_reason": reason}
        return Reply.of({**facts, **empty})

    def _num_ctx(self, model: OllamaModel, body: dict[str, Any]) -> int:
        asked = (body.get("options") or {}).get("num_ctx") or model.parameters.get("num_ctx")
        return min(asked or DEFAULT_NUM_CTX, model.context_length)

    def _fit(self, model: OllamaModel, body: dict[str, Any]) -> tuple[int, list[dict[str, Any]]] | Reply:
        """Prompt tokens and the turns that are left after the real server's silent cutting."""
        num_ctx = self.loaded[model.name] = self._num_ctx(model, body)
        turns = list(body.get("messages", ()))
        tokens = _count(turns) if turns else _words(body["prompt"])
        if tokens > num_ctx and self.honours_truncate and body.get("truncate") is False:
            return _error(400, "the input length exceeds the context length")
        while _count(turns) > num_ctx and len(turns) > 1:
            oldest = next((n for n, turn in enumerate(turns[:-1]) if turn["role"] != "system"), None)
            if oldest is None:
                break
            del turns[oldest]
            tokens = _count(turns)
        return (num_ctx // 2 + 2 if tokens > num_ctx else tokens), turns

    def _room(self, model: OllamaModel, body: dict[str, Any], prompt_tokens: int) -> int | None:
        """How many tokens the answer may have before the context is full; None where old ones are shifted out."""
        if not self.honours_truncate or body.get("shift") is not False:
            return None
        return max(self._num_ctx(model, body) - prompt_tokens, 0)

    def _embed(self, body: dict[str, Any]) -> Reply:
        model = self._find(body["model"])
        if model is None:
            return _not_found(body["model"])
        if "embedding" not in model.capabilities:
            return _error(501, "This server does not support embeddings. Start it with `--embeddings`")
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if body.get("truncate") is False and any(_words(text) > model.context_length for text in texts):
            return _error(400, "the input length exceeds the context length")
        self.loaded[model.name] = model.context_length
        return Reply.of(
            {
                "model": body["model"],
                "embeddings": [_vector(text) for text in texts],
                "total_duration": 14_143_917,
                "load_duration": 1_019_500,
                "prompt_eval_count": sum(map(_words, texts)),
            }
        )


# --- faults of this protocol ------------------------------------------------------------------------------------


def stream_error(after: int, message: str = "an error was encountered while running the model") -> Fault:
    """A line `{"error": …}` in the middle of a stream."""
    return garbage(after, _line({"error": message}))


def refused(status: int, message: str, path: str = "", **headers: str) -> Fault:
    """An HTTP error with Ollama's body."""
    return refusal(status, msgspec.json.encode({"error": message}), path, **headers)


# --- parts ------------------------------------------------------------------------------------------------------


class _Parts(msgspec.Struct):
    pieces: list[dict[str, Any]]
    tokens: int
    reason: str


def _parts(body: dict[str, Any], answer: OllamaAnswer, room: int | None) -> _Parts:
    """The answer word by word, cut by `num_predict`, `stop` and the room in the context."""
    options = body.get("options") or {}
    content = answer.content
    for stop in options.get("stop") or ():
        content = content.partition(stop)[0]
    pieces: list[dict[str, Any]] = [{"content": "", "thinking": word} for word in _split(answer.thinking)]
    pieces += [{"content": word} for word in _split(content)]
    limits = [limit for limit in (options.get("num_predict", -1), room) if limit is not None and limit >= 0]
    limit = min(limits, default=len(pieces))
    if limit < len(pieces):
        return _Parts(pieces[:limit], limit, "length")
    tokens = len(pieces) + len(answer.tool_calls)
    for number, call in enumerate(answer.tool_calls):
        pieces.append({"content": "", "tool_calls": [{"id": f"call_{number:08d}", "function": call}]})
    return _Parts(pieces, tokens, "stop")


def _stream(
    body: dict[str, Any],
    model: OllamaModel,
    frames: Iterable[dict[str, Any]],
    last: dict[str, Any],
    prompt_tokens: int,
    parts: _Parts,
) -> Reply:
    head = {"model": body["model"], "created_at": CREATED}
    figures = {
        "done": True,
        "done_reason": parts.reason,
        "total_duration": 3_000_000_000,
        "load_duration": 500_000_000,
        "prompt_eval_count": prompt_tokens,
        "prompt_eval_duration": 500_000_000,
        "eval_count": parts.tokens,
        "eval_duration": 2_000_000_000,
    }
    if body.get("stream", True):
        lines = [*({**head, **frame, "done": False} for frame in frames), {**head, **last, **figures}]
        return Reply(headers=NDJSON, frames=map(_line, lines))
    whole = dict(last)
    for frame in frames:
        _merge(whole, frame)
    return Reply.of({**head, **whole, **figures})


def _merge(whole: dict[str, Any], frame: dict[str, Any]) -> None:
    for key, value in frame.items():
        if isinstance(value, dict):
            _merge(whole.setdefault(key, {}), value)
        elif key in ("content", "response", "thinking", "tool_calls"):
            whole[key] = whole[key] + value if key in whole else value


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _error(status: int, message: str) -> Reply:
    return Reply.of({"error": message}, status)


def _not_found(name: str) -> Reply:
    return _error(404, f"model '{name}' not found")


def _images(body: dict[str, Any]) -> list[str]:
    """The base64 of every image of a request."""
    holders = [body, *body.get("messages", ())]
    return [image for holder in holders for image in holder.get("images") or ()]


def _split(text: str) -> list[str]:
    """Words with the space before them."""
    return [piece for n, word in enumerate(text.split(" ")) if (piece := word if n == 0 else f" {word}")]


def _words(text: str) -> int:
    return len(text.split())


def _count(turns: list[dict[str, Any]]) -> int:
    return sum(_words(turn.get("content") or "") for turn in turns)


def _vector(text: str) -> list[float]:
    """A unit vector that depends on the text."""
    values = [byte / 255 + 0.001 for byte in hashlib.sha256(text.encode()).digest()[:EMBEDDING_LENGTH]]
    length = sum(value * value for value in values) ** 0.5
    return [value / length for value in values]
