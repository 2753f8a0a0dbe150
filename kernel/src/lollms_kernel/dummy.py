"""The scriptable dummy binding: for demos, tests and developers of clients.

It goes through the plugin door like any other binding, answers what its settings say, and can be told to be
slow, to fail, to crash its process or to hang, so that every fault of a real engine can be shown.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import struct
import threading
import wave
import zlib
from collections.abc import AsyncGenerator
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from .contracts import Binding, BindingCard, BindingContext, InstanceSettings, Isolation
from .errors import GenerationFailed, InvalidRequest, NotSupported
from .types import Chunk, Finished, GenerateRequest, GpuNeed, Message, ModelInfo, Output, TextDelta, Usage

FLUSH = 0.05
"""Seconds that let the chunks so far leave the process before it crashes or hangs."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class DummySettings(InstanceSettings, frozen=True, kw_only=True):
    """How the dummy behaves; every key is optional."""

    model: str = "dummy-model"
    context_size: Annotated[int, msgspec.Meta(ge=1)] = 4096
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] = 1024
    reply: str = ""
    """A fixed answer; empty: echo the last user prompt."""
    echo_system: bool = False
    """Answer with what reached the binding, as JSON."""
    chunks: tuple[str, ...] = ()
    """Stream exactly these strings."""
    streaming: bool = True
    tokenizer: bool = True
    """Offer one token per UTF-8 byte."""
    delay: Seconds = 0.0
    stream_chunk_delay: Seconds = 0.0
    load_delay: Seconds = 0.0
    requires_gpu: bool = False
    fail_after: Count | None = None
    crash_after: Count | None = None
    hang_after: Count | None = None
    input_modalities: tuple[str, ...] = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    isolation: Literal["auto", "inline", "process"] = "auto"
    """Where it runs; auto: in a worker process if it is told to crash or to hang."""


class DummyBinding(Binding):
    """Streams back what its settings or the request say."""

    type_name: ClassVar[str] = "dummy_binding"
    card: ClassVar[BindingCard] = BindingCard(
        display_name="Dummy",
        version="1.0.0",
        author="lollms",
        description="Answers what it is told to, as slowly or as badly as it is told to; for demos and tests.",
        supported_input_modalities=("text", "image", "audio", "video", "document"),
        supported_output_modalities=("text", "image", "audio"),
    )
    Settings: ClassVar[type[InstanceSettings]] = DummySettings
    settings: DummySettings

    def __init__(self, settings: DummySettings, context: BindingContext) -> None:
        super().__init__(settings, context)
        self._loaded = False

    @property
    def isolation(self) -> Isolation:
        """See `DummySettings.isolation`."""
        if self.settings.isolation != "auto":
            return self.settings.isolation
        harmful = self.settings.crash_after is not None or self.settings.hang_after is not None
        return "process" if harmful else "inline"

    def gpu_need(self, request: GenerateRequest) -> GpuNeed:
        """A whole lease when `requires_gpu` is set."""
        return GpuNeed(required=self.settings.requires_gpu)

    async def list_models(self) -> list[ModelInfo]:
        """Its one model."""
        own = self.settings
        return [
            ModelInfo(
                name=own.model,
                model_type="ttt" if "text" in own.output_modalities else "tti",
                format="dummy",
                context_size=own.context_size,
                max_output_tokens=own.max_output_tokens,
                input_modalities=own.input_modalities,
                output_modalities=own.output_modalities,
                supports_streaming=own.streaming,
            )
        ]

    async def get_model_info(self, model: str | None = None) -> ModelInfo:
        """Facts of its one model. Raises ModelNotFound for any other name."""
        return await super().get_model_info(model or self.settings.model)

    async def load(self, model: str) -> None:
        """Take `load_delay` seconds, the first time."""
        await self.get_model_info(model)
        if not self._loaded:
            await asyncio.sleep(self.settings.load_delay)
            self._loaded = True

    async def unload(self) -> None:
        """Forget that it was loaded."""
        self._loaded = False

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """The configured answer, piece by piece, with the configured faults."""
        await self.load(request.model or self.settings.model)
        await asyncio.sleep(self.settings.delay)
        if request.generation_type not in ("ttt", "stt"):
            await self._misbehave(0)
            yield self._media(request)
            yield Finished(usage=Usage(_size(_prompt_text(request)), 0))
            return
        pieces = self._pieces(request)
        for count, piece in enumerate(pieces):
            await self._misbehave(count)
            if count and self.settings.stream_chunk_delay:
                await asyncio.sleep(self.settings.stream_chunk_delay)
            yield TextDelta(piece)
        await self._misbehave(len(pieces))
        yield Finished(usage=Usage(_size(_prompt_text(request)), sum(map(_size, pieces))))

    async def tokenize(self, text: str, model: str | None, add_bos: bool, add_eos: bool) -> list[int]:
        """The UTF-8 bytes of `text`; 256 begins and 257 ends a sequence."""
        await self._check_tokenizer(model)
        return [*([256] if add_bos else []), *text.encode(), *([257] if add_eos else [])]

    async def detokenize(self, tokens: list[int], model: str | None) -> str:
        """The text of UTF-8 bytes."""
        await self._check_tokenizer(model)
        unknown = [token for token in tokens if not 0 <= token <= 257]
        if unknown:
            raise InvalidRequest(f"Token {unknown[0]} is not in the vocabulary.", hint="Tokens are 0 to 257.")
        return bytes(token for token in tokens if token < 256).decode(errors="replace")

    async def _check_tokenizer(self, model: str | None) -> None:
        if not self.settings.tokenizer:
            raise NotSupported(f"Binding instance '{self.name}' does not support tokenization.")
        await self.get_model_info(model)

    def _pieces(self, request: GenerateRequest) -> list[str]:
        own = self.settings
        if own.chunks:
            pieces = list(own.chunks)
        elif own.echo_system:
            pieces = [_received(request)]
        else:
            pieces = re.findall(r"\s*\S+|\s+$", own.reply or request.prompt)
        return pieces if own.streaming else ["".join(pieces)]

    async def _misbehave(self, count: int) -> None:
        own = self.settings
        if count in (own.crash_after, own.hang_after):
            await asyncio.sleep(FLUSH)
        if own.fail_after == count:
            raise GenerationFailed(
                f"The dummy binding fails after {count} chunks, as its settings say (fail_after)."
            )
        if own.crash_after == count:
            os.kill(os.getpid(), signal.SIGSEGV)
        if own.hang_after == count:
            threading.Event().wait()  # blocks the worker's event loop: exactly what the watchdog is for

    def _media(self, request: GenerateRequest) -> Output:
        facts = {"prompt_used": request.prompt, "model": self.settings.model}
        if request.generation_type in ("tti", "i2i"):
            return Output("image", small_png(zlib.crc32(request.prompt.encode())), "image/png", facts)
        if request.generation_type in ("tts", "ttm", "audio2audio"):
            return Output("audio", short_wav(), "audio/wav", facts)
        raise NotSupported(f"The dummy binding cannot make '{request.generation_type}'.")


def _received(request: GenerateRequest) -> str:
    """What reached the binding, as JSON text."""
    media = [
        {"type": item.type, "role": item.role, "mime_type": item.mime_type, "bytes": len(item.data)}
        for item in request.media
    ]
    facts: dict[str, Any] = {
        "system": request.system,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "prompt": request.prompt,
        "parameters": request.parameters,
        "media": media,
    }
    told = msgspec.json.encode(facts).decode()
    for text in request.ends_at:
        # It is about to name the texts that end it: JSON can spell them so that they do not.
        told = re.sub(re.escape(text), _spelled_out, told, flags=re.IGNORECASE)
    return told


def _spelled_out(found: re.Match[str]) -> str:
    first = found[0][0]
    return found[0] if first in '"\\{}[],:' else f"\\u{ord(first):04x}{found[0][1:]}"


def _prompt_text(request: GenerateRequest) -> str:
    turns: tuple[Message, ...] = request.messages
    return (request.system or "") + (request.raw_prompt or "".join(message.content for message in turns))


def _size(text: str) -> int:
    return len(text.encode())


def small_png(colour: int, size: int = 8) -> bytes:
    """A valid PNG of `size` × `size` pixels in one 24-bit colour."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + (colour & 0xFFFFFF).to_bytes(3, "big") * size) * size
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    )


def short_wav(seconds: float = 0.1, rate: int = 8000) -> bytes:
    """A valid WAV of silence: mono, 16 bits."""
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(bytes(2 * int(seconds * rate)))
    return target.getvalue()
