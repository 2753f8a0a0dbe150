"""Labelled turns out of the grammar: whole ones, and ones that break off where people pause."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from lollms_transport_ws_chat.turn_detection.history import Expected
from lollms_transport_ws_chat.turn_detection.languages import language

from .digits import answer
from .grammar import COMPLETE, NEEDED, OPEN, PHRASES, Grammar, Word, entries

WEIGHTS = {OPEN: 1.0, NEEDED: 5.0}
"""How often people pause at a place, other things being equal."""

ANSWERS = {
    "yesno": (Expected.YES_OR_NO,),
    "which": (Expected.WHICH,),
    "open": (Expected.OPEN,),
    "name": (Expected.NAME,),
}
ANY_BEFORE = (
    [Expected.ANYTHING] * 11
    + [Expected.STATEMENT] * 5
    + [Expected.OPEN] * 3
    + [Expected.WHICH, Expected.YES_OR_NO]
)
PAUSES = entries(PHRASES / "pauses.txt")
SYLLABLES = (
    "ba be bo ca co da de di fa fe fi ga go ha he ka ke la le li lo ma me mi mo na ne no pa pe po ra re r"
    "i ro sa se so ta te ti to va ve vi wa wi za zo tra pre sto cla gri ple"
).split()
CODAS = ["", "", "n", "r", "l", "s", "t", "m", "ck", "nd", "rt", "x", "th", "sh"]
KEPT = ["ing", "ed", "ly", "s", "er", "est", "ion", "ness", "ment", "able", "ful", "ive", "al", "y"]


class Example(NamedTuple):
    """A turn, what was asked before it, and whether it is complete."""

    text: str
    expected: Expected
    complete: bool


def function_words() -> frozenset[str]:
    """Words that keep their identity whatever the turn is about."""
    more = "yes no yeah okay not thanks thank what who when where why how there here now please it me him them us much many more all one ones other don't doesn't didn't isn't aren't wasn't can't couldn't won't wouldn't haven't hasn't want need like know think get got go going make let let's something anything everything nothing somebody anybody back again today tomorrow yesterday dot email number sorry wait actually maybe"  # noqa: E501
    return language("en").open_words | frozenset(more.split())


class Examples:
    """A stream of examples, the same for the same seed."""

    def __init__(self, seed: int, references: int = 300_000) -> None:
        self.grammar = Grammar()
        self._rng = random.Random(seed)
        self._intransitive = self.grammar.intransitive()
        self._function = function_words()
        self.complete: set[tuple[str, bool]] = set()
        """Texts that are complete somewhere, with whether they answer a question: as breaks they prove nothing."""
        rng = random.Random(seed + 1)
        for _ in range(references):
            words, answers = self.grammar.turn(rng)
            for end, word in enumerate(words, 1):
                if word.after == COMPLETE and end <= 8:
                    self.complete.add((_text(words[:end]), bool(answers)))

    def stream(self) -> Iterator[Example]:
        """Examples without end, half of them complete."""
        while True:
            yield from self._some()

    def _some(self) -> Iterator[Example]:
        rng = self._rng
        draw = rng.random()
        if draw < 0.02:
            yield self._styled(rng.choice(PAUSES["ALONE"]), rng.choice(ANY_BEFORE), False)
            return
        if draw < 0.14:
            words, expected = answer(rng, self.grammar)
        else:
            words, answers = self._natural()
            expected = rng.choice(ANSWERS[answers] if answers else ANY_BEFORE)
        prefix = self._prefix(expected)
        yield self._whole(prefix, words, expected)
        broken = self._broken(prefix, words, expected)
        if broken is not None:
            yield broken

    def _prefix(self, expected: Expected) -> list[str]:
        """What was said before: a filler, or another whole sentence."""
        rng = self._rng
        draw = rng.random()
        if draw < 0.12:
            return rng.choice(PAUSES["BEFORE"]).split()
        if expected >= Expected.NAME:
            return []
        if draw < 0.22:
            words, _ = self._natural()
            return [word.text for word in words]
        return []

    def _natural(self) -> tuple[list[Word], str]:
        """A turn of the grammar; people speak long ones less often than the grammar does."""
        while True:
            words, answers = self.grammar.turn(self._rng)
            if len(words) <= 10 or self._rng.random() < 8 / len(words) - 0.25:
                return words, answers

    def _whole(self, prefix: list[str], words: list[Word], expected: Expected) -> Example:
        rng = self._rng
        ends = [n for n, word in enumerate(words, 1) if word.after == COMPLETE]
        end = len(words) if rng.random() < 0.55 else rng.choice(ends)
        return self._styled(
            _text([*_as_words(prefix), *self._disguised(words[:end], expected)]), expected, True
        )

    def _broken(self, prefix: list[str], words: list[Word], expected: Expected) -> Example | None:
        rng = self._rng
        if rng.random() < 0.12:  # whole, and then a word that goes on
            ends = [n for n, word in enumerate(words, 1) if word.after == COMPLETE]
            tail = rng.choice(PAUSES["GOING_ON"] if rng.random() < 0.75 else PAUSES["FILLERS"])
            kept = self._disguised(words[: rng.choice(ends)], expected)
            return self._styled(_text([*_as_words(prefix), *kept]) + " " + tail, expected, False)
        places = [n for n, word in enumerate(words, 1) if word.after in WEIGHTS]
        if not places:
            return None
        weights = [
            WEIGHTS[words[n - 1].after] * (2.0 if words[n - 1].text in self._function else 1.0)
            for n in places
        ]
        (end,) = rng.choices(places, weights)
        text = _text(words[:end])
        needed = words[end - 1].after == NEEDED
        if not needed and words[end - 1].text in self._intransitive and rng.random() < 0.9:
            return None
        answers = expected not in (Expected.ANYTHING, Expected.STATEMENT, Expected.OPEN)
        if (text, False) in self.complete or (answers and (text, True) in self.complete):
            return None
        if rng.random() < 0.08:
            text += " " + rng.choice(PAUSES["FILLERS"])
            return self._styled(" ".join([*prefix, text]), expected, False)
        return self._styled(
            _text([*_as_words(prefix), *self._disguised(words[:end], expected)]), expected, False
        )

    def _disguised(self, words: list[Word], expected: Expected) -> list[Word]:
        """In two of five turns: words of content as strangers, which only their endings tell apart."""
        rng = self._rng
        if rng.random() < 0.6 or expected >= Expected.NAME:
            return words
        chance = rng.choice([0.15, 0.4, 0.8])
        return [
            Word(self._stranger(word.text), word.after)
            if word.text not in self._function and len(word.text) > 2 and rng.random() < chance
            else word
            for word in words
        ]

    def _stranger(self, word: str) -> str:
        rng = self._rng
        ending = next(
            (ending for ending in KEPT if word.endswith(ending) and len(word) > len(ending) + 2), ""
        )
        return "".join(rng.choices(SYLLABLES, k=rng.randint(1, 2))) + rng.choice(CODAS) + ending

    def _styled(self, text: str, expected: Expected, complete: bool) -> Example:
        """As recognisers write it: mostly bare, at times with capitals and marks, which are right most of the time."""
        rng = self._rng
        if rng.random() < 0.65:
            return Example(text, expected, complete)
        words = text.split()
        words = ["I" + word[1:] if _is_i(word) else word for word in words]
        if rng.random() < 0.85:
            words[0] = words[0][:1].upper() + words[0][1:]
        for n in range(len(words) - 1):
            if rng.random() < 0.05:
                words[n] += rng.choice([",", ",", "."])
        text = " ".join(words)
        draw = rng.random()
        if complete:
            asks = words[0].lower() in QUESTION_WORDS
            mark = (
                ("?" if asks else rng.choice(".....!"))
                if draw < 0.88
                else ""
                if draw < 0.98
                else rng.choice("?,")
            )
        else:
            mark = (
                ""
                if draw < 0.66
                else rng.choice([",", "...", "…", "-", ","])
                if draw < 0.88
                else "."
                if draw < 0.97
                else "?"
            )
        return Example(text + mark, expected, complete)


_AM = re.compile(r"\bi am(?= \w)")

QUESTION_WORDS = frozenset(
    "what who where when why how which whose is are do does did can could will would should have has was were may"
    " am".split()
)


def _is_i(word: str) -> bool:
    """Whether it is a form of "I", which is written large."""
    return word == "i" or word.startswith("i'")


def _as_words(texts: list[str]) -> list[Word]:
    return [Word(text, OPEN) for text in texts]


def _text(words: list[Word]) -> str:
    return _AM.sub("i'm", " ".join(word.text for word in words))
