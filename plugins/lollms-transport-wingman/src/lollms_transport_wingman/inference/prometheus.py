"""Figures in Prometheus' text format, under llama-server's names."""

from __future__ import annotations

from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4"
PREFIX = "llamacpp:"

COUNTERS = {
    "prompt_tokens_total": "Number of prompt tokens processed.",
    "prompt_tokens_cached_total": "Number of prompt tokens taken from the cache.",
    "prompt_seconds_total": "Prompt process time",
    "tokens_predicted_total": "Number of generation tokens processed.",
    "tokens_predicted_seconds_total": "Predict process time",
    "n_decode_total": "Total number of llama_decode() calls",
    "n_tokens_max": "Largest observed n_tokens.",
    "spec_decode_num_draft_tokens_total": "Number of draft tokens proposed.",
    "spec_decode_num_accepted_tokens_total": "Number of draft tokens accepted.",
    "spec_decode_num_drafts_total": "Number of drafts.",
}
GAUGES = {
    "prompt_tokens_seconds": "Average prompt throughput in tokens/s.",
    "predicted_tokens_seconds": "Average generation throughput in tokens/s.",
    "requests_processing": "Number of requests processing.",
    "requests_deferred": "Number of requests deferred.",
    "n_busy_slots_per_decode": "Average number of busy slots per llama_decode() call",
    "kv_cache_usage_ratio": "KV-cache usage. 1 means 100 percent usage.",
    "kv_cache_tokens": "KV-cache tokens.",
}

_RATES = {
    "prompt_tokens_seconds": ("prompt_tokens_total", "prompt_seconds_total"),
    "predicted_tokens_seconds": ("tokens_predicted_total", "tokens_predicted_seconds_total"),
}


class Scrapes:
    """Turns counters into text; averages are those since the last scrape of the same instance."""

    def __init__(self) -> None:
        self._last: dict[str, Mapping[str, float]] = {}

    def text(self, instance: str, figures: Mapping[str, float]) -> str:
        """One scrape. Figures that the engine does not tell are 0."""
        before = self._last.get(instance, {})
        self._last[instance] = dict(figures)
        rates = {name: _rate(figures, before, count, seconds) for name, (count, seconds) in _RATES.items()}
        lines: list[str] = []
        for kind, known in (("counter", COUNTERS), ("gauge", GAUGES)):
            for name, words in known.items():
                value = rates.get(name, figures.get(name, 0))
                lines += (
                    f"# HELP {PREFIX}{name} {words}",
                    f"# TYPE {PREFIX}{name} {kind}",
                    f"{PREFIX}{name} {_number(value)}",
                )
        return "\n".join(lines) + "\n"


def _rate(now: Mapping[str, float], before: Mapping[str, float], count: str, seconds: str) -> float:
    passed = now.get(seconds, 0.0) - before.get(seconds, 0.0)
    return (now.get(count, 0.0) - before.get(count, 0.0)) / passed if passed > 0 else 0.0


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
