"""The binding type `openai_binding`: text, speech, transcripts and vectors from one service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, ClassVar

import msgspec

from lollms_kernel.contracts import BindingCard
from lollms_kernel.errors import InvalidRequest, NotSupported, UnsupportedInput
from lollms_kernel.types import Chunk, Finished, GenerateRequest, ModelInfo, Notice, Output, TextDelta
from lollms_kernel.upstream import fetch_images

from .answer import Answer, Piece, has_begun
from .catalogue import continues_only
from .events import HEAVY, Form, encode, open_events
from .messages import chat_messages, tools_of
from .parameters import extra_fields, ignored_parameters, ignored_system, map_parameters
from .service import ServiceBinding
from .settings import Kind, OpenAISettings
from .speech import (
    MAX_AUDIO,
    PCM_RATE,
    SPEECH_PARAMETERS,
    TRANSCRIPT_PARAMETERS,
    Heard,
    file_of,
    recording,
    sound_type,
    speech,
    speech_body,
    transcript_body,
)
from .tokens import EngineTokens

MAX_TEXTS = 2048
"""Texts in one request for vectors; more are asked for in several."""


class OpenAIBinding(ServiceBinding):
    """OpenAI, or any service that speaks its API: FastGPT, vLLM, llama-server and others."""

    type_name: ClassVar[str] = "openai_binding"
    card: ClassVar[BindingCard] = BindingCard(
        display_name="OpenAI and compatible",
        version="1.2.1",
        author="lollms",
        description="Text, vision, tools, speech and vectors from OpenAI or any service that speaks its API.",
        requirements=("openai>=3,<4",),
        documentation_url="https://platform.openai.com/docs/api-reference",
        supported_input_modalities=("text", "image", "audio", "document"),
        supported_output_modalities=("text", "audio"),
    )
    Settings = OpenAISettings
    kinds: ClassVar[tuple[Kind, ...]] = ("ttt", "tts", "stt", "embedding")
    settings: OpenAISettings

    def adjusted(self, info: ModelInfo) -> ModelInfo:
        """With the context size and the inputs that the settings give to text models."""
        own = self.settings
        if info.output_modalities != ("text",) or info.model_type == "stt":
            return info
        inputs = own.input_modalities or info.input_modalities
        return msgspec.structs.replace(
            info,
            context_size=own.context_size or info.context_size,
            input_modalities=inputs,
            model_type="vlm" if own.input_modalities and "image" in inputs else info.model_type,
        )

    # --- generation ---

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Stream the answer of `request.model`; closing this closes the connection to the service."""
        match request.generation_type:
            case "ttt":
                return self._write(request)
            case "tts":
                return self._speak(request)
            case "stt":
                return self._listen(request)
        raise NotSupported(
            f"Binding instance '{self.name}' does not make '{request.generation_type}'.",
            hint="`dalle_binding` makes images.",
        )

    async def _write(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        request = await fetch_images(request, self.settings.fetch_image_urls)
        path, body, notices = await self._text_body(request)
        content = await encode(body, _media_size(request))
        answer = Answer()
        stream = self.upstream(body).stream(
            lambda: open_events(self.client, path, content, Piece), begun=has_begun
        )
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                for chunk in answer.add(piece):
                    while notices:  # not before, so that a request that fails at once streams nothing
                        yield notices.pop(0)
                    yield chunk
        if answer.is_empty:
            raise self.service.broken()
        for chunk in (*notices, *answer.end(request.model or "")):
            yield chunk

    async def _text_body(self, request: GenerateRequest) -> tuple[str, dict[str, Any], list[Notice]]:
        """Path and body of the request, and what of it has no effect."""
        model = request.model or (await self.get_model_info()).name
        engine = (await self.catalogue()).engine
        mapped = map_parameters(request.parameters, model, engine, self.settings.extended_sampling)
        tools, notices = tools_of(request)
        body: dict[str, Any] = {"model": model, "stream": True}
        if self.settings.stream_usage:
            body["stream_options"] = {"include_usage": True}
        body |= {**extra_fields(self.settings.extra_body), **mapped.fields}
        notices = [*mapped.notices, *notices]
        if request.raw_prompt is None and not continues_only(model):
            heavy = _media_size(request) >= HEAVY
            body["messages"] = (
                await asyncio.to_thread(chat_messages, request) if heavy else chat_messages(request)
            )
            if tools:
                body["tools"] = tools
            return "/chat/completions", body, notices
        if request.media:
            raise UnsupportedInput("A raw prompt cannot hold media.", hint="Send a conversation.")
        if "max_completion_tokens" in body:
            body["max_tokens"] = body.pop("max_completion_tokens")
        if tools:
            notices.append(Notice("functions_ignored", "A raw prompt is continued without functions."))
        if request.system:
            notices.append(
                Notice("system_ignored", "A raw prompt is continued as it is, without the system text.")
            )
        body["prompt"] = request.prompt
        return "/completions", body, notices

    async def _speak(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        own = self.settings
        body = speech_body(request, own.tts_voice, own.tts_format)
        body["extra_body"] = {**extra_fields(own.extra_body), **body["extra_body"]}

        async def start() -> AsyncIterator[bytes]:
            return speech(self.client, body)

        sound = bytearray()
        async with aclosing(self.upstream(body).stream(start)) as pieces:
            async for piece in pieces:
                sound += piece
                if len(sound) > MAX_AUDIO:
                    raise self.service.broken()
        if not sound:
            raise self.service.broken()
        mime_type = sound_type(bytes(sound[:16]), body["response_format"])
        facts = {"prompt_used": request.prompt, "model": request.model, "voice": body["voice"]}
        if mime_type == "audio/pcm":
            facts["sample_rate"] = PCM_RATE
        for notice in (*ignored_parameters(request.parameters, SPEECH_PARAMETERS), *ignored_system(request)):
            yield notice
        yield Output("audio", bytes(sound), mime_type, facts)
        yield Finished()

    async def _listen(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        body = {**extra_fields(self.settings.extra_body), **transcript_body(request)}
        form = Form(body, [("file", file_of(recording(request)))])
        notices = ignored_parameters(request.parameters, TRANSCRIPT_PARAMETERS) + ignored_system(request)
        told, last = "", Heard()
        stream = self.upstream(body).stream(
            lambda: open_events(self.client, "/audio/transcriptions", form, Heard)
        )
        async with aclosing(stream) as events:
            async for event in events:
                text = event.delta if event.text is None else event.text.removeprefix(told)
                last = event
                if text:
                    told += text
                    while notices:
                        yield notices.pop(0)
                    yield TextDelta(text)
        if last.text is None:  # neither a whole transcript nor the event that ends one
            raise self.service.dropped() if told else self.service.broken()
        for notice in notices:
            yield notice
        yield Finished(usage=last.counted(), metadata=last.facts())

    # --- vectors and tokens ---

    async def embed(self, texts: list[str], model: str | None) -> list[list[float]]:
        """One vector for each text, from `model`, the setting `embedding_model` or the service's first such model."""
        if not all(texts):
            raise InvalidRequest("An empty text has no vector.", hint="Leave it out.")
        name = model or self.settings.embedding_model or await self._embedding_model()
        vectors: list[list[float]] = []
        for start in range(0, len(texts), MAX_TEXTS):
            some = texts[start : start + MAX_TEXTS]
            vectors += await self.upstream({"model": name}).ask(partial(self._embed, some, name))
        return vectors

    async def _embed(self, texts: list[str], model: str) -> list[list[float]]:
        answer = await self.client.embeddings.create(model=model, input=texts)
        if len(answer.data) != len(texts):
            raise self.service.broken()
        return [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]

    async def _embedding_model(self) -> str:
        models = (await self.catalogue()).models or {}
        found = next((name for name in models if self.kind(name) == "embedding"), None)
        if found is None:
            raise NotSupported(
                f"{self.service} lists no model for vectors.",
                hint="Name one: `embedding_model` of the instance.",
            )
        return found

    async def tokenize(self, text: str, model: str | None, add_bos: bool, add_eos: bool) -> list[int]:
        """Token ids, where the service is a llama-server or vLLM. Raises NotSupported elsewhere."""
        return await (await self._tokens(model)).tokenize(text, add_bos, add_eos)

    async def detokenize(self, tokens: list[int], model: str | None) -> str:
        """The text of token ids, where the service is a llama-server or vLLM. Raises NotSupported elsewhere."""
        return await (await self._tokens(model)).detokenize(tokens)

    async def _tokens(self, model: str | None) -> EngineTokens:
        engine = (await self.catalogue()).engine
        if engine not in ("llama-server", "vllm"):
            raise NotSupported(f"Binding instance '{self.name}' does not support tokenization.")
        name = (await self.get_model_info(model)).name
        return EngineTokens(self.client, self.upstream({"model": name}), self.beside, engine, name)


def _media_size(request: GenerateRequest) -> int:
    return sum(len(item.data) for item in request.media)
