"""`/v1/models` and `/models`: what can be named as `model`."""

from __future__ import annotations

import time
from typing import Any

from lollms_kernel.contracts import HasEngine
from lollms_kernel.errors import LollmsError, ModelNotFound
from lollms_kernel.types import ModelInfo

from .call import Call
from .target import PERSONALITY, choose_named, model_names

OWNER = "llamacpp"


async def list_models(call: Call) -> None:
    """On the inference port its own model; on the main port those of all instances, and the personalities."""
    entries = await _entries(call)
    models = [_ollama_entry(entry) for entry in entries if not entry["id"].startswith(PERSONALITY)]
    await call.send_json({"models": models, "object": "list", "data": entries})


async def one_model(call: Call) -> None:
    """`GET /v1/models/{id}`; the id may hold slashes."""
    wanted = call.scope["path"].removeprefix("/v1/models/").removeprefix("/models/")
    for entry in await _entries(call):
        if wanted == entry["id"] or wanted in entry["aliases"]:
            await call.send_json(entry)
            return
    raise ModelNotFound(f"The model '{wanted[:100]}' does not exist.", hint="GET /v1/models lists all.")


async def _entries(call: Call) -> list[dict[str, Any]]:
    if not call.main_port and call.server.default_instance("ttt", call) is not None:
        target = await choose_named(call, "")
        meta = await _engine_meta(target.binding, target.model)
        names = [target.instance, f"{target.instance}/{target.info.name}"]
        return [_entry(target.shown, names, target.info, meta, OWNER)]
    entries = []
    for name, instance, info in await model_names(call.kernel):
        entries.append(_entry(name, [f"{instance}/{info.name}"], info, {}, instance))
    default = call.server.default_instance("ttt", call)
    for entry in entries:
        entry["tags"] = ["default"] if entry["owned_by"] == default and _is_first(entry, entries) else []
    return entries + [
        {
            "id": f"{PERSONALITY}{name}",
            "aliases": [],
            "tags": ["personality"],
            "object": "model",
            "created": int(call.server.started),
            "owned_by": "personality",
            "meta": None,
            "name": personality.card.name,
        }
        for name, personality in sorted(call.kernel.personalities.items())
    ]


def _is_first(entry: dict[str, Any], entries: list[dict[str, Any]]) -> bool:
    return next(other for other in entries if other["owned_by"] == entry["owned_by"]) is entry


def _entry(
    name: str, aliases: list[str], info: ModelInfo, meta: dict[str, Any], owner: str
) -> dict[str, Any]:
    known = {
        "vocab_type": None,
        "n_vocab": None,
        "n_ctx": info.context_size,
        "n_ctx_train": info.context_size,
        "n_embd": None,
        "n_params": None,
        "size": info.size,
        "ftype": info.quantization_level,
        **meta,
    }
    return {
        "id": name,
        "aliases": [alias for alias in aliases if alias != name],
        "tags": [],
        "object": "model",
        "created": int(time.time()),
        "owned_by": owner,
        "meta": known,
        "modalities": {"input": list(info.input_modalities), "output": list(info.output_modalities)},
        "capabilities": list(info.capabilities),
    }


async def _engine_meta(binding: object, model: str | None) -> dict[str, Any]:
    if not isinstance(binding, HasEngine):
        return {}
    try:
        meta = (await binding.properties(model)).get("meta")
    except LollmsError:
        return {}  # it is not loaded, or cannot be; the listing says what the file says
    return meta if isinstance(meta, dict) else {}


def _ollama_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """The same as Ollama's clients look for it."""
    meta = entry["meta"] or {}
    return {
        "name": entry["id"],
        "model": entry["id"],
        "modified_at": "",
        "size": meta.get("size") or "",
        "digest": "",
        "type": "model",
        "description": "",
        "tags": entry["tags"],
        "capabilities": entry["capabilities"] or ["completion"],
        "parameters": "",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "",
            "families": [""],
            "parameter_size": "",
            "quantization_level": meta.get("ftype") or "",
        },
    }
