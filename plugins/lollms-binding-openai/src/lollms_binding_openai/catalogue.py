"""What the name of a model tells about it, for services that tell nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

from .settings import Kind

_KINDS: tuple[tuple[Kind | None, re.Pattern[str]], ...] = (
    (None, re.compile(r"moderation|realtime|sora|gpt-live|rerank|(^|[-/])guard")),
    (
        None,
        re.compile(r"^(o\d|gpt-\d[\d.]*)-(pro|codex)|deep-research|computer-use"),
    ),  # of the Responses API only
    ("embedding", re.compile(r"embed|(^|[-/])(bge|e5|gte|ada-002|all-minilm)\b")),
    ("stt", re.compile(r"whisper|transcribe|parakeet|canary")),
    ("tts", re.compile(r"(^|[-/_])(x?tts|kokoro|piper|orpheus|chatterbox)\b|[-/_]tts")),
    (
        "tti",
        re.compile(
            r"dall-?e|gpt-image|chatgpt-image|stable-?diffusion|(^|[-/])(sdxl?|flux|qwen-image)\b|imagen"
        ),
    ),
)
_OLD_COMPLETION = re.compile(r"gpt-3\.5-turbo-instruct|(^|:)(davinci|babbage)-002")
_REASONING = re.compile(r"(^|[/:])(o\d|gpt-[5-9])(?!.*chat)|codex-mini")
_BLIND = re.compile(
    r"gpt-3\.5|gpt-4(-32k)?(-0\d{3})?$|gpt-4-(0125|1106|turbo-preview)|o1-(mini|preview)|o3-mini"
)
_CALLS_NOTHING = re.compile(
    r"^(o1-(mini|preview)|chatgpt-4o|gpt-3\.5-turbo-0301|gpt-4-0314|gpt-5-chat)|-search-"
)
_HEARS = re.compile(r"audio|omni|ultravox|voxtral|phi-4-multimodal")

_LIMITS: tuple[tuple[re.Pattern[str], int, int], ...] = tuple(
    (re.compile(pattern), context, output)
    for pattern, context, output in (
        (r"gpt-3\.5-turbo-instruct", 4_096, 4_096),
        (r"gpt-3\.5-turbo", 16_385, 4_096),
        (r"gpt-4-(turbo|1106|0125|vision)", 128_000, 4_096),
        (r"gpt-4-32k", 32_768, 32_768),
        (r"gpt-4(-0\d{3})?$", 8_192, 8_192),
        (r"gpt-4o-2024-05-13$", 128_000, 4_096),
        (r"gpt-4o|chatgpt-4o", 128_000, 16_384),
        (r"gpt-4\.1", 1_047_576, 32_768),
        (r"gpt-5(\.\d)?-chat", 128_000, 16_384),
        (r"gpt-5(-(mini|nano|pro|codex|\d{4}-\d\d-\d\d))*$|gpt-5\.[12](?!.*chat)", 400_000, 128_000),
        (r"o1-preview", 128_000, 32_768),
        (r"o1-mini", 128_000, 65_536),
        (r"o1|o3|o4-mini|codex-mini", 200_000, 100_000),
    )
)
"""Context and output tokens of OpenAI's own models as it documents them; its listing does not have them."""


def kind_of(name: str, told: Mapping[str, Kind]) -> Kind | None:
    """What a model makes; None for models that are asked in a way that is not spoken here.

    `told` is the setting `model_types`; its first pattern that fits wins.
    """
    for pattern, kind in told.items():
        if fnmatchcase(name, pattern):
            return kind
    lowered = name.lower()
    return next((kind for kind, pattern in _KINDS if pattern.search(lowered)), "ttt")


def inputs_of(name: str, kind: Kind | None) -> tuple[str, ...]:
    """What a model probably takes. A text model that nobody knows may see: the service refuses if it does not."""
    if kind == "stt":
        return ("text", "audio")
    if kind == "tti":
        return ("text",) if "dall-e-3" in name else ("text", "image")
    if kind != "ttt":
        return ("text",)
    if continues_only(name):
        return ("text",)
    lowered = name.lower()
    sees = () if _BLIND.search(lowered) else ("image",)
    hears = ("audio",) if _HEARS.search(lowered) else ()
    return ("text", *sees, *hears, "document")


def continues_only(name: str) -> bool:
    """Whether this is one of OpenAI's old models that continue a text and cannot chat."""
    return _OLD_COMPLETION.search(name.lower()) is not None


def calls_nothing(name: str) -> bool:
    """Whether this is one of OpenAI's chat models that cannot call functions."""
    return _CALLS_NOTHING.search(name.lower()) is not None


def reasons(name: str) -> bool:
    """Whether this is one of OpenAI's models that think first: they refuse the classical sampling parameters."""
    return _REASONING.search(name.lower()) is not None


def limits_of(name: str) -> tuple[int | None, int | None]:
    """Context size and output tokens of one of OpenAI's own models, fine-tuned ones included; None: not known."""
    base = name.removeprefix("ft:").partition(":")[0] if name.startswith("ft:") else name
    for pattern, context, output in _LIMITS:
        if pattern.match(base):
            return context, output
    return None, None
