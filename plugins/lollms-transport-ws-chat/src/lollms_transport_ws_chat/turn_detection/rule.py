"""The rule: a turn goes on where its last word, or its ending, is one that needs something after it."""

from __future__ import annotations

from collections.abc import Sequence

from .detector import Turn, TurnDetector, spoken_last
from .languages import Language, guessed, known_code, language
from .normalise import normalised
from .punctuation import final_mark

SPACELESS = {"zh", "ja"}


class RuleDetector(TurnDetector):
    """Looks at the final mark and the last words; eight languages, and English lists for every other one."""

    name = "rule"
    instant = True

    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        """See `TurnDetector.probability`."""
        return rule_probability(spoken_last(turns), spoken_language(turns, language))


GUESSED_FROM = 4
"""Turns that a language is guessed from: the last one alone is often too short."""


def spoken_language(turns: Sequence[Turn], code: str | None) -> str:
    """The language with lists that a code names or else the words tell: the user's, then the assistant's."""
    if (known := known_code(code)) is not None:
        return known
    last = turns[-GUESSED_FROM:]
    own = " ".join(turn.content for turn in last if turn.role == "user")
    both = " ".join(turn.content for turn in last)
    return guessed(normalised(own)) or guessed(normalised(both)) or "en"


def rule_probability(text: str, code: str) -> float:
    """What the rule says about a text: 0.95, 0.9 complete; 0.1, 0.05 open; 0 for an empty one. `code` has lists."""
    plain = normalised(text)
    if not plain:
        return 0.0
    mark = final_mark(text)
    if mark == "open":
        return 0.05
    if mark == "end" and not text.rstrip().endswith("."):
        return 0.95
    lists = language(code)
    return 0.1 if is_open(plain, lists) else 0.95 if mark else 0.9


def is_open(plain: str, lists: Language) -> bool:
    """Whether a normalised text ends with something that needs more after it."""
    if plain in lists.whole or lists.closing.search(plain):
        return False
    if lists.open.search(plain):
        return True
    if lists.name in SPACELESS:
        return plain.endswith(lists.open_endings)
    last = plain.rpartition(" ")[2]
    if last in lists.open_words or last.endswith(("-", "'")):
        return True
    return any(plain == ending or plain.endswith(" " + ending) for ending in lists.open_endings)
