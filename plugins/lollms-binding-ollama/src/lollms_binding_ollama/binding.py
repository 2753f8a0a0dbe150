"""The binding type `ollama_binding`: a thin client of an Ollama server."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from lollms_kernel.contracts import Binding, BindingCard, BindingContext
from lollms_kernel.errors import BindingUnavailable, LollmsError, NotSupported
from lollms_kernel.types import Chunk, GenerateRequest, ModelInfo, Notice
from lollms_kernel.upstream import Upstream, fetch_images

from .answer import Answer
from .models import Models
from .parameters import read_wishes
from .prompt import Prompt, build_prompt
from .refusals import explain
from .settings import OllamaSettings, check, service_of

if TYPE_CHECKING:
    from ollama import AsyncClient

logger = logging.getLogger(__name__)

ENDING = 0.5
"""Seconds that Ollama may take to end a response after its last part."""


class OllamaBinding(Binding):
    """Text and vision models of an Ollama server; every request names its own, none changes what others get."""

    type_name: ClassVar[str] = "ollama_binding"
    card: ClassVar[BindingCard] = BindingCard(
        display_name="Ollama",
        version="0.1.0",
        author="lollms",
        description="Uses the models of an Ollama server: chat, vision, tools, JSON, embeddings.",
        requirements=("ollama>=0.6",),
        documentation_url="https://github.com/ollama/ollama/blob/main/docs/api.md",
        supported_input_modalities=("text", "image"),
    )
    Settings = OllamaSettings
    settings: OllamaSettings

    def __init__(self, settings: OllamaSettings, context: BindingContext) -> None:
        super().__init__(settings, context)
        check(settings)
        self.service = service_of(settings)
        self.upstream = Upstream(self.service, settings, lambda error: explain(self.service, error))
        self._client: AsyncClient | None = None
        self._models: Models | None = None
        self._used: set[str] = set()
        self._greeting: asyncio.Task[None] | None = None

    @classmethod
    def unavailable_reason(cls) -> LollmsError | None:
        """Whether the client library is missing."""
        if importlib.util.find_spec("ollama") is not None:
            return None
        return BindingUnavailable(
            "The client library ollama is not installed.", hint="Run `pip install 'ollama>=0.6,<1'`."
        )

    def supports_role(self, media_type: str, role: str) -> bool:
        """Images in any role; which models take them is known of each model."""
        return media_type == "image"

    async def open(self) -> None:
        """Make the client. Whether Ollama is there is found out beside, and logged."""
        self._client = await asyncio.to_thread(_make_client, self.settings)
        self._models = Models(self._client, self.upstream, self.settings.num_ctx)
        self._greeting = asyncio.create_task(self._greet(), name=f"look for Ollama of {self.name}")

    async def close(self) -> None:
        """Close all connections. Models stay loaded as long as `keep_alive` says."""
        if self._greeting is not None:
            self._greeting.cancel()
            await asyncio.wait([self._greeting])
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]
        self._client = self._models = self._greeting = None

    async def _greet(self) -> None:
        try:
            models = await self.models.every()
        except LollmsError as error:
            logger.warning("%s", error.detail)
        else:
            logger.info("%s has %d models", self.service, len(models))

    @property
    def client(self) -> AsyncClient:
        """The library's client. Raises BindingUnavailable before `open` and after `close`."""
        if self._client is None:
            raise BindingUnavailable(f"Binding instance '{self.name}' is not open.")
        return self._client

    @property
    def models(self) -> Models:
        """The models. Raises BindingUnavailable before `open` and after `close`."""
        if self._models is None:
            raise BindingUnavailable(f"Binding instance '{self.name}' is not open.")
        return self._models

    # --- models ---

    async def list_models(self) -> list[ModelInfo]:
        """What Ollama has, at most ten seconds old."""
        return await self.models.every()

    async def get_model_info(self, model: str | None = None) -> ModelInfo:
        """What Ollama says of a model, by default the instance's own, else its first. Raises ModelNotFound."""
        return await self.models.find(model or self.settings.default_model)

    async def load(self, model: str) -> None:
        """Have Ollama load a model, which else the first request does."""
        info = await self.get_model_info(model)
        if "text" in info.output_modalities:
            await self._empty_request(info.name, self.settings.keep_alive or None)  # 0 would unload it

    async def unload(self) -> None:
        """Have Ollama unload the models that this instance has used and that are loaded now."""
        running = await self.upstream.ask(self.client.ps)
        for name in {str(entry.model) for entry in running.models} & self._used:
            await self._empty_request(name, 0)
        self._used.clear()

    async def _empty_request(self, model: str, keep_alive: float | str | None) -> None:
        """An empty prompt loads a model, and unloads it where it is not to be kept."""
        options = {} if self.settings.num_ctx is None else {"num_ctx": self.settings.num_ctx}
        options = {**self.settings.options, **options}
        await self.upstream.ask(
            lambda: self.client.generate(model, prompt="", keep_alive=keep_alive, options=options)
        )
        self._used.add(model)

    # --- generation ---

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Stream the answer of `request.model`."""
        if request.generation_type != "ttt":
            raise NotSupported(
                f"{self.service} makes text, not '{request.generation_type}'.",
                hint="`lollms bindings` lists what else is installed.",
            )
        wishes = read_wishes(request.parameters, self.settings, self.context.default_context_size)
        request = await fetch_images(request, self.settings.fetch_image_urls)
        info = await self.get_model_info(request.model)
        prompt = build_prompt(request, wishes)
        arguments, notices = self._arguments(prompt, info.name)
        answer = Answer(prompt, info.name, request.id)
        self._used.add(info.name)
        async with aclosing(self.upstream.stream(lambda: self._start(prompt.raw, arguments))) as parts:
            async for part in parts:
                while notices:  # only now, so that a request that fails at once streams nothing
                    yield notices.pop(0)
                if part.done:
                    await _reach_end(parts)
                for chunk in answer.read(part):
                    yield chunk
                if part.done:
                    return
        raise self.service.dropped()  # it ended without its last part

    def _arguments(self, prompt: Prompt, model: str) -> tuple[dict[str, Any], list[Notice]]:
        from .client import read_tools

        notices = list(prompt.notices)
        arguments = {**prompt.arguments, "model": model}
        if prompt.tools:
            arguments["tools"], simplified = read_tools(prompt.tools)
            if simplified:
                names = ", ".join(simplified)
                message = f"Ollama's client does not send nested parts of a schema; simplified: {names}."
                notices.append(Notice("tool_schema_simplified", message, {"names": simplified}))
        return arguments, notices

    async def _start(self, raw: bool, arguments: dict[str, Any]) -> AsyncIterator[Any]:
        from .client import chat, complete

        return await (complete if raw else chat)(self.client, arguments)

    async def embed(self, texts: list[str], model: str | None) -> list[list[float]]:
        """One vector for each text. A text that does not fit is an error, unless the instance lets Ollama cut it."""
        name = model or self.settings.default_model or await self.models.first_for("embedding")
        info = await self.get_model_info(name)
        answer = await self.upstream.ask(
            lambda: self.client.embed(
                info.name,
                texts,
                truncate=self.settings.truncate,
                options=self.settings.options or None,
                keep_alive=self.settings.keep_alive,
            )
        )
        return [list(vector) for vector in answer.embeddings]


async def _reach_end(parts: AsyncGenerator[Any, None]) -> None:
    """Wait a moment for the end of a response whose last part was read: only then its connection is used again."""
    with suppress(TimeoutError, StopAsyncIteration, LollmsError):
        async with asyncio.timeout(ENDING):
            await anext(parts)


def _make_client(settings: OllamaSettings) -> AsyncClient:
    from .client import make_client

    return make_client(settings)
