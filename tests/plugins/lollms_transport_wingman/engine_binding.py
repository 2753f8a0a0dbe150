"""A binding with every capability of a slot engine, scripted by the request's prompt: what the transport makes of it
is under test, not llama.cpp. Tokens are UTF-8 bytes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from typing import Any, ClassVar, Literal

import msgspec

from lollms_kernel.contracts import (
    Binding,
    BindingCard,
    BindingContext,
    InstanceSettings,
    Isolation,
    Register,
)
from lollms_kernel.errors import ContextOverflow, InvalidRequest
from lollms_kernel.hookspecs import hookimpl
from lollms_kernel.types import (
    Chunk,
    Embedding,
    EmbeddingOptions,
    Finished,
    GenerateRequest,
    Message,
    ModelInfo,
    Notice,
    Progress,
    Ranking,
    TemplateOptions,
    TextDelta,
    ThoughtDelta,
    TokenProbability,
    ToolCall,
    Usage,
)

TIMINGS = {
    "cache_n": 3,
    "prompt_n": 4,
    "prompt_ms": 8.0,
    "prompt_per_token_ms": 2.0,
    "prompt_per_second": 500.0,
    "predicted_n": 2,
    "predicted_ms": 10.0,
    "predicted_per_token_ms": 10.0,
    "predicted_per_second": 100.0,
}
DIMENSIONS = 4


class EngineSettings(InstanceSettings, frozen=True, kw_only=True):
    """How many slots, and how it embeds."""

    n_slots: int = 2
    pooled: bool = True
    fetch_image_urls: bool = False
    run_in: Literal["inline", "process"] = "inline"


class EngineBinding(Binding):
    """Answers as its prompt says: echo, tools, thoughts, overflow, length, slow, anything else as it is."""

    type_name: ClassVar[str] = "scripted_engine"
    card: ClassVar[BindingCard] = BindingCard(
        display_name="Scripted engine", version="1.0", author="tests", description="For tests."
    )
    Settings: ClassVar[type[InstanceSettings]] = EngineSettings
    endless: ClassVar[bool] = True
    settings: EngineSettings

    def __init__(self, settings: EngineSettings, context: BindingContext) -> None:
        super().__init__(settings, context)
        self._busy = 0
        self._scales = {0: 1.0}
        self._predicted = 0

    @property
    def isolation(self) -> Isolation:
        return self.settings.run_in

    async def list_models(self) -> list[ModelInfo]:
        return [
            ModelInfo(
                name="engine-model",
                context_size=256,
                input_modalities=("text", "image", "audio", "document"),
                capabilities=(
                    "chat",
                    "tools",
                    "tokens",
                    "infill",
                    "embeddings",
                    "rerank",
                    "grammar",
                    "logprobs",
                ),
                size=1234,
                quantization_level="Q4_0",
            )
        ]

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        prompt = request.prompt if request.infill is None else request.infill.prompt
        if prompt.startswith("overflow"):
            raise ContextOverflow("Too long.", n_prompt_tokens=602, n_ctx=256)
        self._busy += 1
        try:
            if request.parameters.get("return_progress"):
                yield Progress(7, 7, details={"cache": 3, "time_ms": 8})
            async for chunk in self._answer(request, prompt):
                yield chunk
        finally:
            self._busy -= 1

    async def _answer(self, request: GenerateRequest, prompt: str) -> AsyncGenerator[Chunk, None]:
        reason = "stop"
        if prompt.startswith("echo"):
            yield TextDelta(received(request))
        elif prompt.startswith("tools"):
            yield ToolCall("call_1", "look_up", '{"wo', 0)
            yield ToolCall("", "", 'rd": "x"}', 0)
            yield ToolCall("call_2", "add", '{"a": 1}', 1)
            reason = "tool_calls"
        elif prompt.startswith("thoughts"):
            yield ThoughtDelta("hm", 0)
            yield ThoughtDelta("m", 0, "closed")
            yield TextDelta("done")
        elif prompt.startswith("late overflow"):
            raise ContextOverflow("Too long.", n_prompt_tokens=602, n_ctx=256)
        elif prompt.startswith("slow"):
            for _ in range(2000):
                yield TextDelta("word ", (1,))
                await asyncio.sleep(0.02)
        elif prompt.startswith("notice"):
            yield Notice("context_truncated", "The context was cut.")
            yield TextDelta("ok")
        else:
            wants = request.parameters.get("n_probs", 0)
            for piece in ("ab", "c"):
                yield TextDelta(
                    piece,
                    tuple(piece.encode()),
                    tuple(probability(byte, wants) for byte in piece.encode() if wants),
                )
            reason = "length" if request.parameters.get("max_tokens") == 3 else "stop"
        self._predicted += 2
        yield Finished(reason, Usage(7, 2, 3), metadata={"engine": self._told(request, reason)})

    def _told(self, request: GenerateRequest, reason: str) -> dict[str, Any]:
        return {
            "id_slot": 1,
            "stop_type": "limit"
            if reason == "length"
            else "word"
            if request.parameters.get("stop")
            else "eos",
            "stopping_word": (request.parameters.get("stop") or [""])[0],
            "truncated": False,
            "has_new_line": False,
            "tokens_cached": 8,
            "prompt": f"<s> {request.prompt}",
            "generation_settings": {
                "temperature": 0.25,
                "n_predict": 1024,
                "max_tokens": 1024,
                "stream": False,
            },
            "timings": TIMINGS,
        }

    # --- capabilities ---

    async def tokenize(self, text: str, model: str | None, add_bos: bool, add_eos: bool) -> list[int]:
        return [*([256] if add_bos else []), *text.encode()]

    async def detokenize(self, tokens: list[int], model: str | None) -> str:
        if any(token > 256 for token in tokens):
            raise InvalidRequest("There is no such token.")
        return bytes(token for token in tokens if token < 256).decode(errors="replace")

    async def token_pieces(self, tokens: list[int], model: str | None) -> list[bytes]:
        return [bytes([token % 256]) for token in tokens]

    async def embed_inputs(
        self, inputs: list[list[int | str]], model: str | None, options: EmbeddingOptions
    ) -> list[Embedding]:
        found = []
        for parts in inputs:
            size = sum(1 if isinstance(part, int) else len(part.encode()) for part in parts)
            vector = [float(size), 0.5, -1.0, float(options.normalize)]
            found.append(
                Embedding(vectors=[vector] * (1 if self.settings.pooled else max(size, 1)), tokens=size)
            )
        return found

    async def rerank(self, query: str, documents: list[str], model: str | None, tenant: str) -> Ranking:
        return Ranking(scores=[float(document.count(query)) for document in documents], tokens=11)

    async def apply_template(
        self, messages: list[Message], model: str | None, options: TemplateOptions
    ) -> str:
        turns = "".join(f"<{message.role}>{message.content}" for message in messages)
        return turns + ("<assistant>" if options.add_generation_prompt else "")

    async def slots(self, model: str | None) -> list[dict[str, Any]]:
        return [
            {
                "id": number,
                "n_ctx": 256,
                "speculative": False,
                "is_processing": number < self._busy,
                "prompt": "a secret prompt",
                "next_token": [
                    {"has_next_token": False, "has_new_line": False, "n_remain": -1, "n_decoded": 0}
                ],
            }
            for number in range(self.settings.n_slots)
        ]

    async def slot_action(
        self, slot: int, action: str, filename: str | None, model: str | None, tenant: str
    ) -> dict[str, Any]:
        if slot >= self.settings.n_slots:
            raise InvalidRequest("Invalid slot ID")
        if action == "erase":
            return {"id_slot": slot, "n_erased": 5}
        return {"id_slot": slot, "filename": filename, "n_saved": 84}

    async def adapters(self, model: str | None) -> list[dict[str, Any]]:
        return [
            {"id": number, "path": f"a{number}.gguf", "scale": scale}
            for number, scale in self._scales.items()
        ]

    async def set_adapters(self, scales: list[tuple[int, float]], model: str | None) -> None:
        self._scales = {**dict.fromkeys(self._scales, 0.0), **dict(scales)}

    async def properties(self, model: str | None) -> dict[str, Any]:
        return {"chat_template": "{{ x }}", "bos_token": "<s>", "meta": {"n_vocab": 257, "n_ctx_train": 2048}}

    async def engine_metrics(self, model: str | None) -> dict[str, float]:
        return {
            "prompt_tokens_total": 40.0 + self._predicted,
            "prompt_seconds_total": 2.0 + self._predicted,
            "tokens_predicted_total": float(self._predicted),
            "n_decode_total": 9.0,
            "requests_processing": float(self._busy),
        }


def received(request: GenerateRequest) -> str:
    """What reached the binding, as JSON text."""
    facts = msgspec.to_builtins(request, builtin_types=(bytes,))
    for message in facts["messages"]:
        message["media"] = [{**item, "data": len(item["data"])} for item in message["media"]]
    facts["raw_media"] = [{**item, "data": len(item["data"])} for item in facts["raw_media"]]
    return msgspec.json.encode(facts).decode()


def probability(token: int, count: int) -> TokenProbability:
    """A token whose first alternative is certain and whose second has probability 0."""
    chances = [0.0, *([-math.inf] * (count - 1))]
    top = tuple(
        TokenProbability(token + n, bytes([(token + n) % 256]), chance) for n, chance in enumerate(chances)
    )
    return TokenProbability(token, bytes([token]), 0.0, top)


@hookimpl
def register_bindings(register: Register) -> None:
    """For the entry point that the tests make."""
    register(EngineBinding)
