"""What llama-server's `/props` and `/v1/models` say of a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .chat_template import ChatTemplate
from .generation_settings import generation_settings
from .installation import ENGINE
from .library import Headers, capabilities, describe, embeds, pooling_of, reranks
from .parameters import model_defaults, read_sampling
from .settings import LlamaCppSettings
from .turns import PLAIN_MARKER

if TYPE_CHECKING:
    from .loading import LoadedModel


def properties(loaded: LoadedModel, settings: LlamaCppSettings) -> dict[str, Any]:
    """Facts about the model and the settings that are in force for requests that say nothing."""
    engine = loaded.engine
    vocabulary = engine.vocabulary
    defaults = read_sampling(settings.default_parameters, model_defaults(loaded.header))
    sees = loaded.media is not None and loaded.media.sees
    hears = loaded.media is not None and loaded.media.hears
    info = describe(loaded.file, Headers(), settings)
    return {
        "default_generation_settings": {
            "params": generation_settings(defaults, seed=defaults.seed % 2**32, n_ctx=engine.n_ctx),
            "n_ctx": engine.n_ctx,
        },
        "total_slots": settings.parallel,
        "model_alias": loaded.file.name,
        "model_ftype": info.quantization_level or "",
        "model_path": loaded.file.path.name,
        "modalities": {"vision": sees, "audio": hears, "video": False},
        "media_marker": PLAIN_MARKER,
        "chat_template": loaded.prompts.template.source,
        "chat_template_caps": _template_caps(loaded.prompts.template),
        "bos_token": vocabulary.text(vocabulary.bos),
        "eos_token": vocabulary.text(vocabulary.eos),
        "build_info": ENGINE,
        "n_ctx": engine.n_ctx,
        "capabilities": list(capabilities(loaded.header, settings)),
        "pooling": pooling_of(loaded.header, settings) or "mean",
        "embeddings": embeds(loaded.header, settings),
        "reranking": reranks(loaded.header, settings),
        "slot_save": settings.slot_save_path is not None,
        "reasoning_format": settings.reasoning_format,
        "meta": {**engine.model.facts(), "n_ctx": engine.n_ctx, "ftype": info.quantization_level or ""},
    }


def _template_caps(template: ChatTemplate) -> dict[str, bool]:
    return {
        "supports_tools": template.knows_tools,
        "supports_tool_calls": "tool_calls" in template.source,
        "supports_system_role": "system" in template.source,
        "supports_thinking": template.thinks,
    }
