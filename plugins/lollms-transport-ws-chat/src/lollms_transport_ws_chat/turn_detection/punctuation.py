"""The detector for recognisers that punctuate: a turn ends with the mark that ends a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .detector import Turn, TurnDetector, spoken_last

_CLOSING = "\"'”’»)]}」』】）"  # noqa: RUF001
_ENDS = re.compile(r"[.?!。？！؟।．｡]\Z")  # noqa: RUF001
_GOES_ON = re.compile(r"(?:\.\.+|…|,|;|:|-|–|—|、|，|；|：)\Z")  # noqa: RUF001


def final_mark(text: str) -> str:
    """What the last mark says: "end", "open" (more is to come) or "" where there is none."""
    text = text.rstrip().rstrip(_CLOSING).rstrip()
    if _GOES_ON.search(text):
        return "open"
    return "end" if _ENDS.search(text) else ""


class PunctuationDetector(TurnDetector):
    """Complete exactly where the text ends with a mark that ends a sentence; an ellipsis does not."""

    name = "punct"
    instant = True

    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        """See `TurnDetector.probability`."""
        return 1.0 if final_mark(spoken_last(turns)) == "end" else 0.0
