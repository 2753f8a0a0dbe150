"""The embedded detector: a small network over the last words, with the rule as one of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

from .detector import Turn, TurnDetector, spoken_last
from .rule import rule_probability


class EmbeddedDetector(TurnDetector):
    """English by the network, other languages by the rule."""

    name = "embedded"
    instant = False

    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        """See `TurnDetector.probability`."""
        return rule_probability(spoken_last(turns), language)
