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


class ToolCall(msgspec.Struct, frozen=True, tag_field="kind", tag="tool_call"):
    """The model asks for a function; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str
    index: int = 0


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation.

    An assistant's turn may hold the calls that it made; a turn of role `tool` is the result of the call
    `tool_call_id`, and `name` the function's.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    media: tuple[Media, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


class Infill(msgspec.Struct, frozen=True, kw_only=True):
    """A gap to fill: what stands before and after it. `extra` is context as (file name, text) pairs."""

    prefix: str
    suffix: str
    prompt: str = ""
    """Text after the prefix that the answer continues."""
    extra: tuple[tuple[str, str], ...] = ()


class Speakers(msgspec.Struct, frozen=True, kw_only=True):
    """How a text shows who speaks, for models that only continue texts and know no turns."""

    user: str = "User: "
    assistant: str = "Assistant: "
    between: str = "\n"
    """Stands between two turns."""


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for, whatever protocol it speaks.

    `messages` is the conversation, oldest first, the last one being what to answer; one of `raw_prompt`,
    `prompt_parts` or `infill` instead is continued without a chat template. `system` is context that always
    precedes; `system_message` replaces a personality's conditioning. When a binding receives the request, `system`
    is the whole system text, `system_message` is None and `binding` and `model` are set.
    """

    id: str
    generation_type: str = "ttt"
    messages: tuple[Message, ...] = ()
    raw_prompt: str | None = None
    prompt_parts: tuple[int | str, ...] | None = None
    """A raw prompt of token ids and texts; only bindings whose model lists the capability `tokens` take it."""
    raw_media: tuple[Media, ...] = ()
    """What the media markers of `raw_prompt` stand for, in order."""
    infill: Infill | None = None
    """Needs the capability `infill`."""
    system: str | None = None
    system_message: str | None = None
    personality: str | None = None
    binding: str | None = None
    model: str | None = None
    parameters: Parameters = msgspec.field(default_factory=dict)
    functions: tuple[Any, ...] = ()
    """Tools offered to the model: described as OpenAI does, or names of this server's functions."""
    public_prefix: int = 0
    """Leading characters of `system` that come from the operator's configuration and from no caller: prompt caches
    may share their tokens among tenants. Personalities set it."""
    speakers: Speakers | None = None
    """Set by personalities: a model without the capability `chat` gets the conversation as one text in this form."""
    ends_at: tuple[str, ...] = ()
    """Texts at which the answer ends, upper and lower case alike; the kernel cuts there, whatever the binding does."""
    raw_thoughts: bool = False
    """Leave `<think>` blocks in the text instead of telling them apart."""
    want_tokens: bool = False
    """Fill `TextDelta.tokens`, and `Finished.metadata["engine"]` where the binding has something to say there."""
    want_progress: bool = True
    """Whether anybody hears of `Progress`; where not, a binding should spare itself the telling."""
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
        if self.prompt_parts is not None:
            return "".join(part for part in self.prompt_parts if isinstance(part, str))
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def media(self) -> tuple[Media, ...]:
        """All media, in order: those of the turns, then those of the raw prompt."""
        return (*(item for message in self.messages for item in message.media), *self.raw_media)


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


class TokenProbability(msgspec.Struct, frozen=True):
    """How likely a token was: `piece` is its bytes, `logprob` the natural logarithm of its probability (-inf for 0),
    `top` the likeliest alternatives, best first."""

    id: int
    piece: bytes
    logprob: float
    top: tuple[TokenProbability, ...] = ()


class TextDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="text", omit_defaults=True):
    """The next piece of visible text.

    `tokens` are the ids that it consists of (only where `want_tokens` was set), `probabilities` one entry for each
    of them (only where the parameter `n_probs` asks for them). Text held back for a stop string comes with the
    tokens that made it, so a delta may have several tokens, or tokens and no text.
    """

    text: str
    tokens: tuple[int, ...] = ()
    probabilities: tuple[TokenProbability, ...] = ()


class ThoughtDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="thought"):
    """The next piece of a reasoning block; `end` is set on the last piece of block number `block`."""

    text: str
    block: int = 0
    end: Literal["", "closed", "incomplete"] = ""


class Info(msgspec.Struct, frozen=True, tag_field="kind", tag="info"):
    """Something to show to the user while work goes on."""

    content: str | dict[str, Any]


class Notice(msgspec.Struct, frozen=True, tag_field="kind", tag="notice"):
    """The server did something differently from what was asked; transports put it into the metadata."""

    code: str
    message: str
    details: dict[str, Any] = msgspec.field(default_factory=dict)


class Progress(msgspec.Struct, frozen=True, tag_field="kind", tag="progress"):
    """Step `step` of `total` is done; `preview` is a small image where the binding makes one.

    Text bindings count prompt tokens here, where the parameter `return_progress` asks for it; `details` then has
    `cache` (tokens found in the cache) and `time_ms`.
    """

    step: int
    total: int
    preview: bytes | None = None
    mime_type: str | None = None
    details: dict[str, Any] = msgspec.field(default_factory=dict)

    def as_info(self) -> dict[str, Any]:
        """The content of the `info` that clients get of it; the preview is bytes, which JSON has as base64."""
        content: dict[str, Any] = {"status": "progress", "step": self.step, "total": self.total}
        if self.preview is not None:
            content |= {"preview": self.preview, "mime_type": self.mime_type}
        return content


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
    capabilities: tuple[str, ...] = ()
    """What else it can do: `chat`, `tools`, `thinking`, `tokens`, `infill`, `embeddings`, `rerank`, `grammar`,
    `json_schema`, `logprobs`. Without any nothing is known, and the model is taken for one that chats."""
    details: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def supports_vision(self) -> bool:
        """Whether it takes images."""
        return "image" in self.input_modalities

    @property
    def supports_audio(self) -> bool:
        """Whether it takes sound."""
        return "audio" in self.input_modalities


class EmbeddingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to embed. `normalize` is the p of the norm to divide by (2 Euclidean, -1 none, 0 the largest component)."""

    normalize: int = 2
    dimensions: int | None = None
    tenant: str = ""


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of one input: one, or one for each token where the model does not pool. `tokens` is their count."""

    vectors: list[list[float]]
    tokens: int


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """How well each document answers a query, in the order of the documents; `tokens` counts all inputs."""

    scores: list[float]
    tokens: int


class TemplateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a chat template may be told beside the turns."""

    tools: tuple[Any, ...] = ()
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)


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
