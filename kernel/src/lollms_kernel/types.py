"""The frozen values that cross boundaries: between transports, kernel, personalities, bindings and workers.

Media are bytes here; base64 exists only at the edge of a transport. All sizes are bytes, all times seconds.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

GENERATION_TYPES = ("ttt", "tti", "ttv", "ttm", "tts", "stt", "i2i", "audio2audio")
"""Text to text, image, video, music and speech; speech to text; image to image; audio to audio."""

MEDIA_TYPES = ("text", "image", "audio", "video", "document")

Parameters = dict[str, Any]
"""Generation parameters under their LoLLMs names, e.g. `max_tokens`, `temperature`, `top_k`, `seed`, `stop`."""


class Media(msgspec.Struct, frozen=True):
    """One input that is not plain text: an image, sound, video or document and what it is for."""

    type: str
    role: str
    data: bytes
    mime_type: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    media: tuple[Media, ...] = ()


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for, whatever protocol it speaks.

    `messages` is the conversation, oldest first, the last one being what to answer; `raw_prompt` instead is
    continued without a chat template. `system` is context that always precedes; `system_message` replaces a
    personality's conditioning. When a binding receives the request, `system` is the whole system text,
    `system_message` is None and `binding` and `model` are set.
    """

    id: str
    generation_type: str = "ttt"
    messages: tuple[Message, ...] = ()
    raw_prompt: str | None = None
    system: str | None = None
    system_message: str | None = None
    personality: str | None = None
    binding: str | None = None
    model: str | None = None
    parameters: Parameters = msgspec.field(default_factory=dict)
    functions: tuple[Any, ...] = ()
    tenant: str = ""
    """Who asks: an id derived from the API key, "" without keys. Queues are fair among tenants and prompt
    caches are never shared between them."""
    source: str = ""
    """The transport that decoded the request."""

    @property
    def prompt(self) -> str:
        """The text to answer: the raw prompt, else the last user turn, else ""."""
        if self.raw_prompt is not None:
            return self.raw_prompt
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def media(self) -> tuple[Media, ...]:
        """All media of all turns, in order."""
        return tuple(item for message in self.messages for item in message.media)


class Usage(msgspec.Struct, frozen=True):
    """Tokens that a generation took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class Timings(msgspec.Struct, frozen=True):
    """Where the time of a generation went, in seconds; None where nobody measured."""

    queue: float | None = None
    load: float | None = None
    prompt: float | None = None
    first_chunk: float | None = None
    generate: float | None = None
    total: float | None = None


class TextDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="text"):
    """The next piece of visible text."""

    text: str


class ThoughtDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="thought"):
    """The next piece of a reasoning block; `end` is set on the last piece of block number `block`."""

    text: str
    block: int = 0
    end: Literal["", "closed", "incomplete"] = ""


class ToolCall(msgspec.Struct, frozen=True, tag_field="kind", tag="tool_call"):
    """The model asks for a function; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str
    index: int = 0


class Info(msgspec.Struct, frozen=True, tag_field="kind", tag="info"):
    """Something to show to the user while work goes on."""

    content: str | dict[str, Any]


class Notice(msgspec.Struct, frozen=True, tag_field="kind", tag="notice"):
    """The server did something differently from what was asked; transports put it into the metadata."""

    code: str
    message: str
    details: dict[str, Any] = msgspec.field(default_factory=dict)


class Progress(msgspec.Struct, frozen=True, tag_field="kind", tag="progress"):
    """Step `step` of `total` is done; `preview` is a small image where the binding makes one."""

    step: int
    total: int
    preview: bytes | None = None
    mime_type: str | None = None


class Output(msgspec.Struct, frozen=True, tag_field="kind", tag="output"):
    """One finished piece of output that is not streamed text: media as bytes, or any JSON value."""

    type: str
    data: Any
    mime_type: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class Finished(msgspec.Struct, frozen=True, tag_field="kind", tag="finished"):
    """The generation ended well. `reason` is stop, length, tool_calls or content_filter."""

    reason: str = "stop"
    usage: Usage | None = None
    timings: Timings = Timings()
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class Failed(msgspec.Struct, frozen=True, tag_field="kind", tag="failed"):
    """The generation ended badly after it had begun; fields as in `errors.LollmsError`."""

    code: str
    message: str
    hint: str | None = None


Chunk = TextDelta | ThoughtDelta | ToolCall | Info | Notice | Progress | Output | Finished | Failed
"""What streams from a binding to a transport. Exactly one Finished or Failed ends a stream."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model; None where it is not known. `context_size` and `max_output_tokens` in tokens."""

    name: str
    model_type: str | None = "ttt"
    size: int | None = None
    modified_at: str | None = None
    quantization_level: str | None = None
    format: str | None = None
    family: str | None = None
    families: tuple[str, ...] | None = None
    parameter_size: str | None = None
    context_size: int | None = None
    max_output_tokens: int | None = None
    template: str | None = None
    license: str | None = None
    homepage: str | None = None
    input_modalities: tuple[str, ...] = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    supports_streaming: bool = True
    details: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def supports_vision(self) -> bool:
        """Whether it takes images."""
        return "image" in self.input_modalities

    @property
    def supports_audio(self) -> bool:
        """Whether it takes sound."""
        return "audio" in self.input_modalities


class GpuNeed(msgspec.Struct, frozen=True):
    """What a request wants of the GPU. Requests with the same `share` key hold one lease together."""

    required: bool = False
    vram_mb: int = 0
    share: str | None = None


class Event(msgspec.Struct, frozen=True):
    """Something that happened, for `observe` hooks: `name` is a past participle such as `finished`."""

    name: str
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    at: float = msgspec.field(default_factory=time.time)
