"""What this protocol is working on, and what it has done: the figures of bindings whose engine tells none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .choice import Choice


class Activity:
    """Counts requests and tokens by instance."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        """Generations under way."""
        self._totals: dict[str, Counter[str]] = {}

    @contextmanager
    def working(self, instance: str, choices: Sequence[Choice]) -> Iterator[None]:
        """Generations of an instance run inside; what they took is added at the end."""
        self.running[instance] += len(choices)
        try:
            yield
        finally:
            self.running[instance] -= len(choices)
            totals = self._totals.setdefault(instance, Counter())
            for choice in choices:
                if choice.finished is not None:
                    _add(totals, choice)

    def totals(self, instance: str) -> dict[str, float]:
        """Counters by llama-server's names, as `contracts.HasEngine.engine_metrics` gives them."""
        return dict(self._totals.get(instance, {}))


def _add(totals: Counter[str], choice: Choice) -> None:
    timings = choice.timings()
    totals["prompt_tokens_total"] += timings["prompt_n"]
    totals["prompt_tokens_cached_total"] += timings["cache_n"]
    totals["prompt_seconds_total"] += timings["prompt_ms"] / 1000
    totals["tokens_predicted_total"] += timings["predicted_n"]
    totals["tokens_predicted_seconds_total"] += timings["predicted_ms"] / 1000
    totals["n_tokens_max"] = max(totals["n_tokens_max"], choice.usage.total_tokens)
