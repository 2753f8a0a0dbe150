"""Slots and figures of a scheduler as llama-server shows them; called between steps."""

from __future__ import annotations

from typing import Any

from .generation_settings import generation_settings
from .scheduler import Scheduler
from .slot import Slot


def view_slots(scheduler: Scheduler) -> list[dict[str, Any]]:
    """Each slot. Texts are left out: they belong to whoever asked, and anybody may look at slots."""
    return [_view(scheduler, slot) for slot in scheduler.slots]


def _view(scheduler: Scheduler, slot: Slot) -> dict[str, Any]:
    n_ctx = scheduler.context.n_ctx
    facts: dict[str, Any] = {
        "id": slot.id,
        "n_ctx": n_ctx,
        "speculative": scheduler.options.draft_max > 0,
        "is_processing": slot.work is not None,
        "state": int(slot.work is not None),
    }
    if slot.task < 0:
        return facts
    work = slot.work
    decoded = work.text.count if work is not None else 0
    if work is not None:
        facts |= {
            "n_prompt_tokens": len(work.job.tokens),
            "n_prompt_tokens_processed": max(0, min(work.done, len(work.job.tokens)) - work.cached),
            "n_prompt_tokens_cache": work.cached,
        }
        slot.settings = generation_settings(work.job.sampling, seed=work.seed, n_ctx=n_ctx)
        for private in ("stop", "grammar", "grammar_triggers", "logit_bias", "preserved_tokens"):
            slot.settings.pop(private, None)
    limit = work.job.sampling.max_tokens if work is not None else -1
    facts |= {
        "id_task": slot.task,
        "params": slot.settings,
        "next_token": [
            {
                "has_next_token": work is not None,
                "has_new_line": work.text.has_new_line if work is not None else False,
                "n_remain": limit - decoded if limit > 0 else -1,
                "n_decoded": decoded,
            }
        ],
    }
    return facts


def idle_slots(count: int, n_ctx: int) -> list[dict[str, Any]]:
    """Slots of a model that is not loaded."""
    return [
        {"id": id, "n_ctx": n_ctx, "speculative": False, "is_processing": False, "state": 0}
        for id in range(count)
    ]


def figures(scheduler: Scheduler, waiting: int = 0) -> dict[str, float]:
    """Counters and gauges."""
    cache = scheduler.cache
    return {
        **scheduler.counters.figures(),
        "requests_processing": float(scheduler.processing),
        "requests_deferred": float(len(scheduler.pending) + waiting),
        "kv_cache_tokens": float(cache.used),
        "kv_cache_usage_ratio": cache.used / scheduler.context.cells,
        "kv_cache_sequences": float(cache.kept + scheduler.processing),
        "cache_ram_bytes": float(cache.host_bytes),
        "slots_total": float(len(scheduler.slots)),
    }
