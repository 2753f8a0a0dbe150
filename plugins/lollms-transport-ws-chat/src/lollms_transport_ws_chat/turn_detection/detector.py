"""What a turn detector is: something that tells how likely it is that a speaker has finished."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec

SEED_THRESHOLD = 0.0009
"""The threshold of the original server, which used a model of the folder layout."""

DetectorName = Literal["embedded", "rule", "folder", "always", "never", "punct"]


class Turn(msgspec.Struct, frozen=True):
    """What one side said. `role` is "user" or "assistant"; turns of other roles are not looked at."""

    role: str
    content: str


class DetectorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which detector, and what it needs."""

    name: DetectorName = "embedded"
    threshold: float | Literal["auto"] = "auto"
    """From 0 to 1: a turn of this probability or more is complete. `auto`: what suits the detector."""
    folder: str | None = None
    """For `folder`: where the model is, relative to the root folder of the server."""


class TurnDetector(ABC):
    """Tells from the words alone how likely it is that a turn is complete."""

    name: ClassVar[str]
    default_threshold: ClassVar[float] = 0.5
    instant: ClassVar[bool] = False
    """Whether `probability` takes microseconds from the first call on, so that it may run on the event loop."""

    def __init__(self, threshold: float | None = None) -> None:
        self.threshold = self.default_threshold if threshold is None else threshold
        """In force: the setting's, or the detector's own default."""

    @abstractmethod
    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        """How likely it is that the last turn, a user's, is complete: from 0 to 1.

        `turns` is the conversation, oldest first; `language` a code such as `en` or `pt-BR`, None where it is not
        known. Blocking and safe to call from several threads. Raises LollmsError where the model cannot be used.
        """

    def threshold_for(self, language: str | None) -> float:
        """The threshold in force for a language; only some detectors tell languages apart."""
        return self.threshold

    def close(self) -> None:  # noqa: B027
        """Give back what the model holds; a later call loads it again."""


def spoken_last(turns: Sequence[Turn]) -> str:
    """What the last user turn says, "" where there is none."""
    return next((turn.content for turn in reversed(turns) if turn.role == "user"), "")
