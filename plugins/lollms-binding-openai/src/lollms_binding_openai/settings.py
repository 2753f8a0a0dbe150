"""What instance files of type `openai_binding` and `dalle_binding` may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from lollms_kernel.contracts import Secret
from lollms_kernel.upstream import UpstreamSettings

Kind = Literal["ttt", "tti", "tts", "stt", "embedding"]
"""What a model makes: text, images, speech, transcripts or vectors."""

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]


class ServiceSettings(UpstreamSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the service is and how it is asked."""

    api_key: Annotated[
        Secret | None,
        Meta(
            description="The key. null: the environment variable OPENAI_API_KEY, which is sent to OpenAI itself only."
        ),
    ] = None
    base_url: Annotated[
        str | None,
        Meta(
            description="Address of another service that speaks OpenAI's API, mostly with /v1; null: OpenAI."
        ),
    ] = None
    model_types: Annotated[
        dict[str, Kind],
        Meta(
            description="What models make whose names do not tell: names or patterns with `*`, e.g. {'voice-*': tts}."
        ),
    ] = {}
    extra_body: Annotated[
        dict[str, Any],
        Meta(
            description="Fields of the service's own that every generation request gets beside the known ones."
        ),
    ] = {}


class OpenAISettings(ServiceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one instance of `openai_binding`."""

    default_model: Annotated[
        str | None,
        Meta(
            description="null, or the untouched default at a service that does not have it: its first text model."
        ),
    ] = "gpt-4o-mini"
    context_size: Annotated[
        Annotated[int, Meta(ge=64)] | None,
        Meta(description="Context size of its models in tokens; null: what the service says of each."),
    ] = None
    input_modalities: Annotated[
        tuple[Literal["text", "image", "audio", "document"], ...] | None,
        Meta(description="What its text models take; null: what the service or the model's name says."),
    ] = None
    embedding_model: Annotated[
        str | None, Meta(description="Model for vectors; null: the first one of the service.")
    ] = None
    tts_voice: Annotated[str, Meta(description="Voice where a request for speech names none.")] = "alloy"
    tts_format: Annotated[AudioFormat, Meta(description="Format of speech where a request names none.")] = (
        "mp3"
    )
    stream_usage: Annotated[
        bool, Meta(description="Ask for token counts; false for services that refuse `stream_options`.")
    ] = True
    extended_sampling: Annotated[
        bool | None,
        Meta(
            description="Send top_k, min_p and others that OpenAI does not know; null: to llama-server and vLLM."
        ),
    ] = None


class DalleSettings(ServiceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one instance of `dalle_binding`."""

    default_model: Annotated[
        str | None,
        Meta(
            description="null, or the untouched default at a service that does not have it: its first image model."
        ),
    ] = "dall-e-3"
    first_token_timeout: Annotated[
        float,
        Meta(gt=0, le=86_400, description="Seconds until the image, or its first preview, must be there."),
    ] = 300.0
    model: Annotated[str, Meta(description="Of older versions; has no effect.")] = "dall-e-3"
    default_size: Annotated[
        str,
        Meta(
            pattern=r"^(auto|[1-9]\d{1,4}x[1-9]\d{1,4})$",
            description="`WIDTHxHEIGHT` or auto; left out for models that do not make it.",
        ),
    ] = "1024x1024"
    default_quality: Annotated[
        Literal["standard", "hd", "auto", "low", "medium", "high", "xhigh", "max"],
        Meta(description="Left out for models that do not know it."),
    ] = "standard"
    default_style: Annotated[
        Literal["vivid", "natural"], Meta(description="Left out for models that do not know it.")
    ] = "vivid"
