"""`/health`, `/metrics` and `/props`."""

from __future__ import annotations

import asyncio
from typing import Any

from lollms_kernel.contracts import HasEngine, HasSlots
from lollms_kernel.errors import LollmsError, NotSupported

from .call import Call
from .fields import Fields
from .prometheus import CONTENT_TYPE
from .sampling import read_sampling
from .slots import described, is_on
from .target import Target, choose_named

HEALTH_TIMEOUT = 2.0
"""Seconds that an engine gets to tell its slots; the server is healthy while an engine is busy."""


async def health(call: Call) -> None:
    """`GET /health`, which needs no key."""
    facts, status = await health_facts(call)
    await call.send_json(facts, status)


async def health_facts(call: Call) -> tuple[dict[str, Any], int]:
    """Slots that are free and busy, as older versions told them; with `include_slots` what each does."""
    facts: dict[str, Any] = {"status": "ok"}
    slots = await _slots(call)
    if slots is None:
        return facts, 200
    idle = sum(not slot.get("is_processing") for slot in slots)
    facts |= {"slots_idle": idle, "slots_processing": len(slots) - idle}
    if is_on(call.query, "include_slots") and not call.kernel.config.security.allowed_api_keys:
        facts["slots"] = slots
    if idle:
        return facts, 200
    if is_on(call.query, "fail_on_no_slot"):
        return {**facts, "status": "no slot available"}, 503
    # programs that watch the main port wait for "ok"; there is a queue, so a busy server serves
    return facts if call.main_port else {**facts, "status": "no slot available"}, 200


async def _slots(call: Call) -> list[dict[str, Any]] | None:
    """The slots of the default instance, or the places that it has; None where nobody knows."""
    name = call.server.default_instance("ttt", call)
    if name is None:
        return None
    try:
        binding = call.kernel.binding(name)
        if isinstance(binding, HasSlots):
            async with asyncio.timeout(HEALTH_TIMEOUT):
                return await described(binding, None, shared=False)
        places = binding.parallel or call.kernel.config.resource_manager.max_running
    except (LollmsError, TimeoutError):
        return None
    busy = min(call.server.activity.running[name], places)
    return [
        {"id": number, "is_processing": number < busy, "state": int(number < busy)}
        for number in range(places)
    ]


async def metrics(call: Call) -> None:
    """`GET /metrics` in Prometheus' format."""
    if not call.server.settings.metrics:
        raise NotSupported("This server does not support metrics endpoint. Start it with `--metrics`")
    target = await choose_named(call, call.query.get("model", ""))
    running = call.server.activity.running[target.instance]
    figures: dict[str, float] = {
        "requests_processing": running,
        **call.server.activity.totals(target.instance),
    }
    if isinstance(target.binding, HasEngine):
        figures = dict(await target.binding.engine_metrics(target.model))
    text = call.server.scrapes.text(target.instance, figures)
    started = str(int(call.server.started)).encode()
    await call.send_bytes(text.encode(), CONTENT_TYPE, extra=[(b"process-start-time-unix", started)])


async def props(call: Call) -> None:
    """`GET /props`."""
    target = await choose_named(call, call.query.get("model", ""))
    await call.send_json(await properties(call, target))


async def properties(call: Call, target: Target) -> dict[str, Any]:
    """What is known of the model and of the server."""
    settings, info = call.server.settings, target.info
    told: dict[str, Any] = {}
    if isinstance(target.binding, HasEngine):
        told = dict(await target.binding.properties(target.model))
        told.pop("meta", None)
    sampling = read_sampling(Fields({}))
    places = target.binding.parallel or call.kernel.config.resource_manager.max_running
    defaults = {"params": sampling.echo(), "n_ctx": info.context_size or 0}
    own: dict[str, Any] = {
        "default_generation_settings": defaults,
        "total_slots": places,
        "model_alias": target.shown,
        "model_ftype": info.quantization_level or "",
        "model_path": info.name,
        "modalities": {
            "vision": info.supports_vision,
            "audio": info.supports_audio,
            "video": "video" in info.input_modalities,
        },
        "media_marker": "<__media__>",
        "chat_template": info.template or "",
        "chat_template_caps": {},
        "bos_token": "",
        "eos_token": "",
        "build_info": call.server.build_info,
        "is_sleeping": False,
        "cors_proxy_enabled": False,
    }
    served = {
        "endpoint_slots": settings.slots and isinstance(target.binding, HasSlots),
        "endpoint_props": settings.change_props,
        "endpoint_metrics": settings.metrics,
        "model_alias": target.shown,
        "ui": False,
        "ui_settings": {},
        "user_name": "",
        "assistant_name": "",
    }
    return {**own, **told, **served}


async def change_props(call: Call) -> None:
    """`POST /props`: llama-server has nothing to change there yet, and neither has this."""
    if not call.server.settings.change_props:
        raise NotSupported("This server does not support changing global properties. Start it with `--props`")
    await call.json()
    await call.send_json({"success": True})
