"""What a service says of its models: OpenAI's list, and what others add to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from lollms_kernel.types import ModelInfo

from .catalogue import calls_nothing, continues_only, inputs_of, limits_of
from .settings import Kind

Engine = Literal["openai", "llama-server", "vllm", "other"]
"""Who answers, as far as it can be told; each takes other parameters."""

_OUTPUTS: dict[Kind, tuple[str, ...]] = {
    "ttt": ("text",),
    "stt": ("text",),
    "tti": ("image",),
    "tts": ("audio",),
    "embedding": ("embedding",),
}
_TYPES: dict[Kind, str] = {"ttt": "ttt", "stt": "stt", "tti": "tti", "tts": "tts", "embedding": "generic"}
_CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length")
_OUTPUT_FIELDS = ("max_output_tokens", "max_completion_tokens", "max_output_length")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One model of `GET /models`; `raw` is the whole of it."""

    id: str
    owned_by: str = ""
    raw: dict[str, Any] = {}

    def describe(self, kind: Kind, official: bool) -> ModelInfo:
        """The model as listings show it, as one that makes `kind`; `official` is whether OpenAI itself serves it."""
        context, output = limits_of(self.id) if official and kind == "ttt" else (None, None)
        meta = _mapping(self.raw.get("meta"))
        provider = _mapping(self.raw.get("top_provider"))
        said = self._inputs() if kind == "ttt" else ()
        return ModelInfo(
            name=self.id,
            model_type="vlm" if "image" in said else _TYPES[kind],
            size=_positive(meta.get("size")),
            modified_at=_date(self.raw.get("created")),
            format="gguf" if self.owned_by == "llamacpp" else None,
            parameter_size=_billions(meta.get("n_params")),
            context_size=self._context(meta) or context,
            max_output_tokens=_first(self.raw, _OUTPUT_FIELDS) or _first(provider, _OUTPUT_FIELDS) or output,
            input_modalities=said or inputs_of(self.id, kind),
            output_modalities=_OUTPUTS[kind],
            supports_streaming=kind in ("ttt", "stt"),
            capabilities=self._capabilities(kind),
            details={"owned_by": self.owned_by} if self.owned_by else {},
        )

    def _context(self, meta: Mapping[str, Any]) -> int | None:
        return _first(self.raw, _CONTEXT_FIELDS) or _first(meta, ("n_ctx", "n_ctx_train"))

    def _capabilities(self, kind: Kind) -> tuple[str, ...]:
        if kind == "embedding":
            return ("embeddings",)
        if kind != "ttt":
            return ()
        if continues_only(self.id):
            return ("completion",)
        said = self.raw.get("supported_parameters")
        calls = "tools" in said if isinstance(said, list) else not calls_nothing(self.id)
        return ("chat", "tools") if calls else ("chat",)

    def _inputs(self) -> tuple[str, ...]:
        """What the service says that the model takes; empty where it says nothing."""
        named = _mapping(self.raw.get("architecture")).get("input_modalities") or self.raw.get(
            "input_modalities"
        )
        if isinstance(named, list):
            known = {"text": "text", "image": "image", "audio": "audio", "file": "document"}
            found = [known[item] for item in named if isinstance(item, str) and item in known]
            return tuple(dict.fromkeys([*found, "document"]))
        vision = _mapping(self.raw.get("capabilities")).get("vision")
        if isinstance(vision, bool):
            return ("text", "image", "document") if vision else ("text", "document")
        return ()


def read_listing(answer: object) -> list[Entry] | None:
    """The models of an answer to `GET /models`, each once; None if it is no such answer."""
    data = answer.get("data") if isinstance(answer, dict) else answer
    if not isinstance(data, list):
        return None
    entries: dict[str, Entry] = {}
    for raw in data:
        if isinstance(raw, dict) and isinstance(raw.get("id"), str) and raw["id"]:
            entries.setdefault(
                raw["id"], Entry(id=raw["id"], owned_by=str(raw.get("owned_by") or "")[:100], raw=raw)
            )
    return list(entries.values())


def engine_of(entries: list[Entry], official: bool) -> Engine:
    """Who answers, told from its listing."""
    if official:
        return "openai"
    owners = {entry.owned_by.lower() for entry in entries}
    if "llamacpp" in owners:
        return "llama-server"
    return "vllm" if "vllm" in owners else "other"


def with_props(info: ModelInfo, props: object) -> ModelInfo:
    """The model with what llama-server's `GET /props` says of the one that is loaded."""
    facts = _mapping(props)
    context = _positive(_mapping(facts.get("default_generation_settings")).get("n_ctx"))
    template = facts.get("chat_template")
    modalities = _mapping(facts.get("modalities"))
    senses = tuple(
        sense for sense, name in (("image", "vision"), ("audio", "audio")) if modalities.get(name) is True
    )
    return msgspec.structs.replace(
        info,
        context_size=context or info.context_size,
        template=template if isinstance(template, str) else None,
        model_type="vlm" if "image" in senses else info.model_type,
        input_modalities=("text", *senses, "document") if modalities else info.input_modalities,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _first(of: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((number for name in names if (number := _positive(of.get(name)))), None)


def _date(seconds: object) -> str | None:
    whole = _positive(seconds)
    if whole is None or whole >= 1 << 33:
        return None
    return datetime.fromtimestamp(whole, UTC).isoformat()


def _billions(count: object) -> str | None:
    whole = _positive(count)
    return f"{whole / 1e9:.1f}B" if whole else None
