"""A binding whose work is done by a worker process."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from ..contracts import (
    AppliesTemplate,
    Binding,
    CountsTokens,
    Embeds,
    EmbedsInputs,
    HasAdapters,
    HasEngine,
    HasSlots,
    Isolation,
    Reranks,
    TellsPieces,
    Tokenizes,
)
from ..errors import ConfigError, LollmsError
from ..types import (
    Chunk,
    Embedding,
    EmbeddingOptions,
    Event,
    GenerateRequest,
    GpuNeed,
    Message,
    ModelInfo,
    Parameters,
    Ranking,
    TemplateOptions,
)
from .frames import as_plain
from .methods import Opening
from .supervisor import State, Supervisor

if TYPE_CHECKING:
    from ..config.schema import WorkersConfig


class WorkerBinding(Binding):
    """Stands for `front` in the server: what needs the engine is done in a worker, the rest by `front` itself.

    It has the capabilities (`Tokenizes`, `Embeds`, `HasSlots` and so on) that `front` has: creating one gives a
    subclass that fits.
    Errors are those of the binding, and WorkerCrashed or WorkerHung for what was under way when the worker died.
    """

    front_type: ClassVar[type[Binding]]

    def __new__(cls, front: Binding, *_: object) -> WorkerBinding:
        """A proxy of the class that fits `front`."""
        return super().__new__(_proxy_type(type(front)))

    def __init__(self, front: Binding, limits: WorkersConfig, observe: Callable[[Event], None]) -> None:
        super().__init__(front.settings, front.context)
        self._front = front
        opening = Opening(
            settings=msgspec.to_builtins(front.settings, enc_hook=as_plain),
            context=front.context,
            search_path=tuple(str(Path(entry).absolute()) for entry in sys.path),
        )
        self._worker = Supervisor(front.name, import_path(type(front)), opening, limits, observe)

    # --- done here --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The instance's name."""
        return self._front.name

    @property
    def isolation(self) -> Isolation:
        """As `front` says."""
        return self._front.isolation

    @property
    def parallel(self) -> int | None:
        """As `front` says."""
        return self._front.parallel

    @property
    def default_parameters(self) -> Parameters:
        """As `front` says."""
        return self._front.default_parameters

    @classmethod
    def builtin_instances(cls) -> Mapping[str, Mapping[str, Any]]:
        """As `front` says."""
        return cls.front_type.builtin_instances()

    @classmethod
    def unavailable_reason(cls) -> LollmsError | None:
        """As `front` says."""
        return cls.front_type.unavailable_reason()

    def gpu_need(self, request: GenerateRequest) -> GpuNeed:
        """As `front` says."""
        return self._front.gpu_need(request)

    def supports_role(self, media_type: str, role: str) -> bool:
        """As `front` says."""
        return self._front.supports_role(media_type, role)

    @property
    def state(self) -> State:
        """What the worker does just now."""
        return self._worker.state

    @property
    def pid(self) -> int | None:
        """The worker's process id while it runs."""
        return self._worker.pid

    @property
    def restarts(self) -> int:
        """How often a worker was started again after a crash or a hang."""
        return self._worker.restarts

    # --- done in the worker -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start the worker and open the binding in it."""
        await self._worker.link()

    async def close(self) -> None:
        """End the worker for good."""
        await self._worker.close()

    async def unload(self) -> None:
        """End the worker, so that its memory really goes back; the next call starts another."""
        await self._worker.stop()

    async def list_models(self) -> list[ModelInfo]:
        """The binding's models."""
        models: list[ModelInfo] = await self._call("list_models")
        return models

    async def get_model_info(self, model: str | None = None) -> ModelInfo:
        """What the binding knows of a model."""
        info: ModelInfo = await self._call("get_model_info", model)
        return info

    async def load(self, model: str) -> None:
        """Make `model` ready in the worker."""
        await self._call("load", model)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Stream the binding's answer. Closing it returns when the worker has stopped working for it."""
        link = await self._worker.link()
        async with link.stream("generate", request) as stream:
            while chunks := await stream.next():
                for chunk in chunks:
                    yield chunk

    async def _call(self, method: str, *arguments: object) -> Any:
        link = await self._worker.link()
        return await link.call(method, *arguments)


class _TokenizesInWorker(WorkerBinding):
    async def tokenize(self, text: str, model: str | None, add_bos: bool, add_eos: bool) -> list[int]:
        """The token ids of `text`."""
        tokens: list[int] = await self._call("tokenize", text, model, add_bos, add_eos)
        return tokens

    async def detokenize(self, tokens: list[int], model: str | None) -> str:
        """The text of token ids."""
        return str(await self._call("detokenize", tokens, model))


class _TellsPiecesInWorker(WorkerBinding):
    async def token_pieces(self, tokens: list[int], model: str | None) -> list[bytes]:
        """The bytes of each token."""
        pieces: list[bytes] = await self._call("token_pieces", tokens, model)
        return pieces


class _CountsTokensInWorker(WorkerBinding):
    async def count_tokens(self, text: str, model: str | None) -> int:
        """The number of tokens of `text`."""
        return int(await self._call("count_tokens", text, model))


class _EmbedsInWorker(WorkerBinding):
    async def embed(self, texts: list[str], model: str | None) -> list[list[float]]:
        """One vector for each text."""
        vectors: list[list[float]] = await self._call("embed", texts, model)
        return vectors


class _EmbedsInputsInWorker(WorkerBinding):
    async def embed_inputs(
        self, inputs: list[list[int | str]], model: str | None, options: EmbeddingOptions
    ) -> list[Embedding]:
        """The embedding of each input."""
        embeddings: list[Embedding] = await self._call("embed_inputs", inputs, model, options)
        return embeddings


class _ReranksInWorker(WorkerBinding):
    async def rerank(self, query: str, documents: list[str], model: str | None, tenant: str) -> Ranking:
        """One score for each document."""
        ranking: Ranking = await self._call("rerank", query, documents, model, tenant)
        return ranking


class _AppliesTemplateInWorker(WorkerBinding):
    async def apply_template(
        self, messages: list[Message], model: str | None, options: TemplateOptions
    ) -> str:
        """The prompt of a conversation."""
        return str(await self._call("apply_template", messages, model, options))


class _HasSlotsInWorker(WorkerBinding):
    async def slots(self, model: str | None) -> list[dict[str, Any]]:
        """Each slot."""
        slots: list[dict[str, Any]] = await self._call("slots", model)
        return slots

    async def slot_action(
        self, slot: int, action: str, filename: str | None, model: str | None, tenant: str
    ) -> dict[str, Any]:
        """Save, restore or erase one slot."""
        done: dict[str, Any] = await self._call("slot_action", slot, action, filename, model, tenant)
        return done


class _HasAdaptersInWorker(WorkerBinding):
    async def adapters(self, model: str | None) -> list[dict[str, Any]]:
        """Each LoRA adapter."""
        adapters: list[dict[str, Any]] = await self._call("adapters", model)
        return adapters

    async def set_adapters(self, scales: list[tuple[int, float]], model: str | None) -> None:
        """Change the scales."""
        await self._call("set_adapters", scales, model)


class _HasEngineInWorker(WorkerBinding):
    async def properties(self, model: str | None) -> dict[str, Any]:
        """What the engine is."""
        properties: dict[str, Any] = await self._call("properties", model)
        return properties

    async def engine_metrics(self, model: str | None) -> dict[str, float]:
        """What the engine has done."""
        metrics: dict[str, float] = await self._call("engine_metrics", model)
        return metrics


_CAPABILITIES: dict[type, type[WorkerBinding]] = {
    Tokenizes: _TokenizesInWorker,
    TellsPieces: _TellsPiecesInWorker,
    CountsTokens: _CountsTokensInWorker,
    Embeds: _EmbedsInWorker,
    EmbedsInputs: _EmbedsInputsInWorker,
    Reranks: _ReranksInWorker,
    AppliesTemplate: _AppliesTemplateInWorker,
    HasSlots: _HasSlotsInWorker,
    HasAdapters: _HasAdaptersInWorker,
    HasEngine: _HasEngineInWorker,
}


@cache
def _proxy_type(front: type[Binding]) -> type[WorkerBinding]:
    """The proxy class with the capabilities and the class attributes of `front`."""
    bases = tuple(proxy for capability, proxy in _CAPABILITIES.items() if issubclass(front, capability))
    facts = {
        "front_type": front,
        "type_name": front.type_name,
        "card": front.card,
        "Settings": front.Settings,
        "endless": front.endless,
    }
    return type(f"{front.__name__}InWorker", (*bases, WorkerBinding), facts)


def import_path(kind: type[Binding]) -> str:
    """`module:Class`, by which a worker finds the class. Raises ConfigError if no other process can find it."""
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise ConfigError(
            f"Binding class '{kind.__qualname__}' of {kind.__module__} cannot be imported by a worker process.",
            hint="Define it at the top level of an importable module, or let its isolation be 'inline'.",
        )
    return f"{kind.__module__}:{kind.__qualname__}"
