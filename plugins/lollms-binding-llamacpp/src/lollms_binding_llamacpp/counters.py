"""What the engine has done since it started, by llama-server's names."""

from __future__ import annotations

import msgspec


class Counters(msgspec.Struct):
    """Totals; nothing is ever reset."""

    prompt_tokens_total: float = 0
    """Evaluated, without those from the cache."""
    prompt_tokens_cached_total: float = 0
    prompt_seconds_total: float = 0
    tokens_predicted_total: float = 0
    tokens_predicted_seconds_total: float = 0
    n_decode_total: float = 0
    n_tokens_max: float = 0
    spec_decode_num_draft_tokens_total: float = 0
    spec_decode_num_accepted_tokens_total: float = 0
    spec_decode_num_drafts_total: float = 0
    decode_seconds_total: float = 0
    sample_seconds_total: float = 0
    busy_slots_total: float = 0
    requests_total: float = 0
    requests_failed_total: float = 0
    requests_cancelled_total: float = 0
    requests_parked_total: float = 0

    def figures(self) -> dict[str, float]:
        """All of them, with what follows from them."""
        figures: dict[str, float] = msgspec.structs.asdict(self)
        busy = figures.pop("busy_slots_total")
        figures["n_busy_slots_per_decode"] = busy / self.n_decode_total if self.n_decode_total else 0.0
        return figures
