"""The models of the fake Gemini, and what the real service refuses of each kind."""

from __future__ import annotations

from typing import Any

import msgspec


class GeminiModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as `/v1beta/models` lists it; `name` without `models/`."""

    name: str
    methods: tuple[str, ...] = ("generateContent", "countTokens", "createCachedContent")
    input_token_limit: int = 1_048_576
    output_token_limit: int = 8_192
    senses: tuple[str, ...] = ("image", "audio", "video", "application")
    """First halves of the MIME types that it takes."""
    thinks: bool = False
    signs: bool = False
    """Its calls of functions carry signatures that must come back, as those of Gemini 3."""
    draws: bool = False
    plain: bool = False
    """Knows neither system instructions nor functions nor JSON, as Gemma."""

    @property
    def described(self) -> dict[str, Any]:
        """Its entry of a listing."""
        words = self.name.replace("-", " ").title()
        return {
            "name": f"models/{self.name}",
            "version": "001",
            "displayName": words,
            "description": f"{words} of the fake.",
            "inputTokenLimit": self.input_token_limit,
            "outputTokenLimit": self.output_token_limit,
            "supportedGenerationMethods": list(self.methods),
            **({"temperature": 1, "topP": 0.95, "topK": 64, "maxTemperature": 2} if self.writes else {}),
            **({"thinking": True} if self.thinks else {}),
        }

    @property
    def writes(self) -> bool:
        """Whether it is asked for content."""
        return "generateContent" in self.methods


MODELS = (
    GeminiModel(name="gemini-2.5-flash", output_token_limit=65_536, thinks=True),
    GeminiModel(name="gemini-2.5-flash-preview-tts", senses=()),
    GeminiModel(name="gemini-2.0-flash"),
    GeminiModel(name="gemini-3-pro-preview", output_token_limit=65_536, thinks=True, signs=True),
    GeminiModel(name="gemini-tiny", input_token_limit=16, output_token_limit=4),
    GeminiModel(name="gemma-3-27b-it", input_token_limit=131_072, senses=("image",), plain=True),
    GeminiModel(name="gemma-3-1b-it", input_token_limit=32_768, senses=(), plain=True),
    GeminiModel(name="gemini-2.0-flash-exp-image-generation", senses=("image",), draws=True, plain=True),
    GeminiModel(name="gemini-2.5-flash-image", input_token_limit=32_768, senses=("image",), draws=True),
    GeminiModel(name="imagen-3.0-generate-002", methods=("predict",), input_token_limit=480),
    GeminiModel(name="gemini-embedding-001", methods=("embedContent", "countTokens"), input_token_limit=2048),
    GeminiModel(name="veo-3.0-generate-001", methods=("predictLongRunning",)),
    GeminiModel(name="aqa", methods=("generateAnswer",)),
)

_ROOT = frozenset(
    "contents systemInstruction generationConfig safetySettings tools toolConfig cachedContent model labels".split()
)
_CONFIG = frozenset(
    "candidateCount stopSequences maxOutputTokens temperature topP topK seed presencePenalty frequencyPenalty "
    "responseMimeType responseSchema responseJsonSchema responseLogprobs logprobs responseModalities "
    "speechConfig thinkingConfig mediaResolution imageConfig enableEnhancedCivicAnswers".split()
)
_PART = frozenset(
    "text inlineData fileData functionCall functionResponse executableCode codeExecutionResult thought "
    "thoughtSignature videoMetadata mediaResolution".split()
)


def objection(model: GeminiModel, body: dict[str, Any], tokens: int) -> str | None:
    """What the real service would say against a request for content; None if it takes it."""
    return (
        _unknown_field("", body, _ROOT)
        or _against_contents(model, body.get("contents") or [])
        or _against_config(model, body)
        or (
            f"The input token count ({tokens}) exceeds the maximum number of tokens allowed "
            f"({model.input_token_limit})."
            if tokens > model.input_token_limit
            else None
        )
    )


def _unknown_field(place: str, value: dict[str, Any], known: frozenset[str]) -> str | None:
    for name in value:
        if name not in known:
            where = f" at '{place}'" if place else ""
            return f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
    return None


def _against_contents(model: GeminiModel, contents: list[dict[str, Any]]) -> str | None:
    if not contents:
        return "* GenerateContentRequest.contents: contents is not specified"
    before: dict[str, Any] = {}
    for number, content in enumerate(contents):
        place = f"contents[{number}]"
        if content.get("role", "user") not in ("user", "model"):
            return "Please use a valid role: user, model."
        if not content.get("parts"):
            return f"* GenerateContentRequest.{place}.parts: contents.parts must not be empty."
        for part in content["parts"]:
            against = _against_part(model, part, f"{place}.parts", before)
            if against:
                return against
        before = content
    return None


def _against_part(model: GeminiModel, part: dict[str, Any], place: str, before: dict[str, Any]) -> str | None:
    unknown = _unknown_field(place, part, _PART)
    if unknown:
        return unknown
    if part.get("text") == "":
        return f"* GenerateContentRequest.{place}: contents.parts must have one initialized field."
    if "inlineData" in part:
        sense = str(part["inlineData"].get("mimeType", "")).partition("/")[0]
        if sense == "image" and sense not in model.senses:
            return f"Image input modality is not enabled for models/{model.name}"
        if sense not in (*model.senses, "text"):
            return f"Unsupported MIME type: {part['inlineData'].get('mimeType')}"
    if "functionResponse" in part:
        asked = [call["functionCall"]["name"] for call in before.get("parts", ()) if "functionCall" in call]
        if part["functionResponse"]["name"] not in asked:
            return "Please ensure that function response turn comes immediately after a function call turn."
    if "functionCall" in part and model.signs and "thoughtSignature" not in part:
        return "Function call is missing a thought_signature in functionCall parts."
    return None


def _against_config(model: GeminiModel, body: dict[str, Any]) -> str | None:
    config = body.get("generationConfig") or {}
    unknown = _unknown_field("generation_config", config, _CONFIG)
    if unknown:
        return unknown
    if model.plain and body.get("systemInstruction"):
        return f"Developer instruction is not enabled for models/{model.name}"
    if model.plain and body.get("tools"):
        return f"Function calling is not enabled for models/{model.name}"
    if model.plain and config.get("responseMimeType") == "application/json":
        return f"JSON mode is not enabled for models/{model.name}"
    if config.get("thinkingConfig") and not model.thinks:
        return "Thinking is not enabled for this model"
    if config.get("imageConfig") and "2.0" in model.name:
        return "Aspect ratio is not enabled for this model"
    if len(config.get("stopSequences") or ()) > 5:
        return "The number of stop sequences must not exceed 5."
    if not 1 <= config.get("maxOutputTokens", 1) <= model.output_token_limit:
        return f"max_output_tokens must be positive and at most {model.output_token_limit}."
    wanted = set(config.get("responseModalities") or ["TEXT"])
    able = wanted == {"AUDIO" if "tts" in model.name else "TEXT"}
    if model.draws:
        able = "IMAGE" in wanted
    if not able:
        names = ", ".join(sorted(wanted))
        return f"The requested combination of response modalities ({names}) is not supported by the model."
    return None
