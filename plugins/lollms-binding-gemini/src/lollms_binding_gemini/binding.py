"""The binding type `gemini_binding`: text from text, images, sound, video and documents."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import ClassVar

from lollms_kernel.contracts import BindingCard
from lollms_kernel.errors import LollmsError, ModelNotFound, NotSupported
from lollms_kernel.types import Chunk, GenerateRequest, Notice
from lollms_kernel.upstream import fetch_images

from .answer import Answer
from .contents import build_call
from .models import Limits, Models
from .parameters import read_wishes
from .sdk import Call, Sdk
from .service import ServiceBinding, installed, missing
from .settings import GeminiSettings, Library

AT_ONCE = 100
"""Texts that the service embeds in one request."""


class GeminiBinding(ServiceBinding[Sdk]):
    """Gemini and Gemma models of Google's service."""

    type_name: ClassVar[str] = "gemini_binding"
    card: ClassVar[BindingCard] = BindingCard(
        display_name="Google Gemini",
        version="0.1.0",
        author="lollms",
        description="Uses Google's Gemini and Gemma models: chat, vision, sound, video, documents, tools, embeddings.",
        requirements=("google-genai>=3,<4",),
        documentation_url="https://ai.google.dev/gemini-api/docs",
        supported_input_modalities=("text", "image", "audio", "video", "document"),
    )
    Settings = GeminiSettings
    settings: GeminiSettings

    @classmethod
    def unavailable_reason(cls) -> LollmsError | None:
        """Whether both libraries are missing."""
        if installed("google-genai") or installed("google-generativeai"):
            return None
        return missing("google-genai")

    @property
    def library(self) -> Library:
        """The library that this instance uses."""
        if self.settings.sdk != "auto":
            return self.settings.sdk
        return "google-genai" if installed("google-genai") else "google-generativeai"

    @property
    def parallel(self) -> int | None:
        """google-generativeai takes a thread for each request, so it gets a limit."""
        if self.library == "google-genai":
            return None
        from .threads import THREADS

        return THREADS

    def make_sdk(self, key: str | None) -> Sdk:
        """A client of the library that the settings name. Raises BindingUnavailable if it is not installed."""
        library = self.library
        if not installed(library):
            raise missing(library)
        if library == "google-generativeai":
            from .generativeai import Generativeai

            return Generativeai(self.settings, self.url, key)
        from .genai import Genai

        return Genai(self.settings, self.url, key)

    def make_models(self, sdk: Sdk) -> Models:
        """Models that make text, or vectors."""
        own = self.settings
        limits = None if own.auto_detect_limits else Limits(own.ctx_size, own.max_output_tokens)
        return Models(
            sdk,
            self.upstream,
            ("ttt", "embedding"),
            default=own.default_model,
            untouched=self.untouched_default(),
            limits=limits,
        )

    # --- generation -----------------------------------------------------------------------------------------------

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Stream the answer of `request.model`."""
        if request.generation_type != "ttt":
            raise NotSupported(
                f"{self.service} is asked for text by this instance, not for '{request.generation_type}'.",
                hint="`gemini_image_binding` makes images; `lollms bindings` lists what else is installed.",
            )
        request = await fetch_images(request, self.settings.fetch_image_urls)
        model = await self.get_model_info(request.model)
        wishes = read_wishes(request.parameters, model, self.settings.include_thoughts)
        call, notices = self.sdk.fit(build_call(request, model, wishes, self.settings.safety))
        answer = Answer(self.service, model.name, request.id, call.config.get("max_output_tokens"))
        async with aclosing(self._answered(call, answer, [*wishes.notices, *notices])) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _answered(
        self, call: Call, answer: Answer, notices: list[Notice]
    ) -> AsyncGenerator[Chunk, None]:
        async with aclosing(self.upstream.stream(lambda: self.sdk.stream(call))) as pieces:
            async for piece in pieces:
                chunks = list(answer.read(piece))
                while notices:  # only now, so that a request that fails at once streams nothing
                    yield notices.pop(0)
                for chunk in chunks:
                    yield chunk
        for chunk in answer.finish():
            yield chunk

    # --- tokens and vectors ---------------------------------------------------------------------------------------

    async def count_tokens(self, text: str, model: str | None) -> int:
        """How many tokens the service counts; it does not say which."""
        info = await self.get_model_info(model)
        if not text:
            return 0  # the service takes no empty content
        return await self.upstream.ask(lambda: self.sdk.count_tokens(info.name, text))

    async def embed(self, texts: list[str], model: str | None) -> list[list[float]]:
        """One vector for each text. Raises NotSupported for a model that makes none."""
        name = model or self.settings.embedding_model or await self.models.first("embedding")
        if name is None:
            raise ModelNotFound(f"{self.service} has no model for vectors.")
        info = await self.get_model_info(name)
        if "embedding" not in info.output_modalities:
            raise NotSupported(
                f"Model '{info.name}' of {self.service} makes no vectors.", hint="Use an embedding model."
            )
        vectors: list[list[float]] = []
        for start in range(0, len(texts), AT_ONCE):
            some = texts[start : start + AT_ONCE]
            vectors += await self.upstream.ask(lambda some=some: self.sdk.embed(info.name, some))  # type: ignore[misc]
        if len(vectors) != len(texts):
            raise self.service.broken()
        return vectors
