"""Detectors that do not listen: every turn is complete, or none is."""

from __future__ import annotations

from collections.abc import Sequence

from .detector import Turn, TurnDetector


class AlwaysComplete(TurnDetector):
    """Answers every input at once, as a typed chat does."""

    name = "always"
    instant = True

    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        """See `TurnDetector.probability`."""
        return 1.0


class NeverComplete(TurnDetector):
    """Waits for silence or for the number of sentences that forces an answer."""

    name = "never"
    instant = True

    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        """See `TurnDetector.probability`."""
        return 0.0
