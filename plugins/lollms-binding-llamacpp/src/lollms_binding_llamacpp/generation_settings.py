"""The settings that were in force for an answer, under llama-server's names, and its timings."""

from __future__ import annotations

import math
from typing import Any

from .job import Job, Result
from .parameters import Sampling

_TRIGGER_NUMBERS = {"token": 0, "word": 1, "pattern": 2, "pattern_full": 3}


def generation_settings(
    sampling: Sampling,
    *,
    seed: int,
    n_ctx: int,
    biases: tuple[tuple[int, float], ...] = (),
    job: Job | None = None,
) -> dict[str, Any]:
    """Every field that llama-server echoes."""
    return {
        "seed": seed,
        "temperature": sampling.temperature,
        "dynatemp_range": sampling.dynatemp_range,
        "dynatemp_exponent": sampling.dynatemp_exponent,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "top_n_sigma": sampling.top_n_sigma,
        "xtc_probability": sampling.xtc_probability,
        "xtc_threshold": sampling.xtc_threshold,
        "typical_p": sampling.typical_p,
        "repeat_last_n": _window(sampling.repeat_last_n, n_ctx),
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "dry_multiplier": sampling.dry_multiplier,
        "dry_base": sampling.dry_base,
        "dry_allowed_length": sampling.dry_allowed_length,
        "dry_penalty_last_n": _window(sampling.dry_penalty_last_n, n_ctx),
        "dry_sequence_breakers": list(sampling.dry_sequence_breakers),
        "mirostat": sampling.mirostat,
        "mirostat_tau": sampling.mirostat_tau,
        "mirostat_eta": sampling.mirostat_eta,
        "adaptive_target": sampling.adaptive_target,
        "adaptive_decay": sampling.adaptive_decay,
        "stop": list(sampling.stop),
        "max_tokens": sampling.max_tokens,
        "n_predict": sampling.max_tokens,
        "n_keep": sampling.n_keep,
        "n_discard": sampling.n_discard,
        "n_indent": sampling.n_indent,
        "n_cache_reuse": sampling.n_cache_reuse,
        "t_max_predict_ms": sampling.t_max_predict_ms,
        "ignore_eos": sampling.ignore_eos,
        "cache_prompt": sampling.cache_prompt,
        "stream": True,
        "logit_bias": [{"token": id, "bias": bias if math.isfinite(bias) else None} for id, bias in biases],
        "n_probs": sampling.n_probs,
        "min_keep": sampling.min_keep,
        "grammar": (job.grammar if job is not None else sampling.grammar) or "",
        "grammar_lazy": sampling.grammar_lazy,
        "grammar_triggers": [
            {"type": _TRIGGER_NUMBERS[t.kind], "value": t.value}
            | ({"token": t.token} if t.kind == "token" else {})
            for t in sampling.grammar_triggers
        ],
        "preserved_tokens": list(sampling.preserved_tokens),
        "samplers": list(sampling.samplers),
        "speculative.types": "none",
        "backend_sampling": False,
        "timings_per_token": sampling.timings_per_token,
        "post_sampling_probs": sampling.post_sampling_probs,
        "lora": [{"id": id, "scale": scale} for id, scale in (job.adapters if job is not None else ())],
    }


def native_timings(result: Result) -> dict[str, Any]:
    """llama-server's `timings`: milliseconds, never null; rates of generation are over all tokens but the first."""
    read = result.prompt_tokens - result.cached_tokens
    made = result.answer.tokens
    prompt_ms, predicted_ms = result.prompt_seconds * 1000, result.generate_seconds * 1000
    timings: dict[str, Any] = {
        "cache_n": result.cached_tokens,
        "prompt_n": read,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / read if read else 0.0,
        "prompt_per_second": read / result.prompt_seconds if result.prompt_seconds > 0 else 0.0,
        "predicted_n": made,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_ms / (made - 1) if made > 1 else 0.0,
        "predicted_per_second": (made - 1) / result.generate_seconds
        if made > 1 and predicted_ms > 0
        else 0.0,
    }
    if result.drafted:
        timings |= {"draft_n": result.drafted, "draft_n_accepted": result.drafts_accepted}
    return timings


def _window(count: int, n_ctx: int) -> int:
    return n_ctx if count < 0 else count
