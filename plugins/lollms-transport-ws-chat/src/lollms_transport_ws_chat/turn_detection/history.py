"""What kind of answer the assistant has just asked for: a number is complete with its last digit, a name is short."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

from .detector import Turn
from .normalise import normalised


class Expected(enum.IntEnum):
    """What the assistant's last turn lets expect."""

    ANYTHING = 0
    STATEMENT = 1
    YES_OR_NO = 2
    WHICH = 3
    OPEN = 4
    NAME = 5
    SPELLING = 6
    EMAIL = 7
    PHONE = 8
    POSTCODE = 9
    CODE = 10
    CARD = 11
    DATE = 12
    YEAR = 13
    AMOUNT = 14
    CLOCK = 15


_KINDS: list[tuple[Expected, re.Pattern[str]]] = [
    (kind, re.compile(r"\b(?:" + "|".join(patterns) + ")"))
    for kind, patterns in [
        (Expected.SPELLING, ["spell", "letters of", "(?:licen[cs]e|number|registration) plate"]),
        (Expected.EMAIL, ["e-?mail", "web ?(?:site|address)"]),
        (Expected.YEAR, ["(?:what|which) year", "the year", "expir"]),
        (
            Expected.CARD,
            ["card number", "number (?:of|on) (?:your|the) .{0,16}card", "account number", "iban"],
        ),
        (
            Expected.PHONE,
            [
                "(?:phone|telephone|mobile|cell|callback|contact) number",
                "number (?:can|should) (?:i|we) (?:call|reach)",
                "number to (?:call|reach)",
            ],
        ),
        (Expected.POSTCODE, ["zip", "post(?:al)? ?code"]),
        (
            Expected.CODE,
            [
                r"(?:pin|code|digits)\b",
                "(?:order|booking|reference|customer|tracking|serial|policy|ticket|member|membership) number",
                "(?:confirmation|case|claim|invoice|model|id) number",
            ],
        ),
        (Expected.DATE, ["date", "birthday", "were you born", "what day (?:of|and)"]),
        (Expected.NAME, [r"name\b", "who am i (?:speaking|talking)", "who is (?:this|calling)"]),
        (Expected.CLOCK, ["(?:what|which|at what) time", "how late", "how early"]),
        (
            Expected.AMOUNT,
            [
                "how (?:much|many|old|long|far|tall|often)",
                "house number",
                "what (?:amount|number|temperature|age)",
            ],
        ),
        (
            Expected.OPEN,
            [
                "(?:how|what) (?:can|may) i (?:help|do|assist)",
                "help you",
                "tell me",
                "describe",
                "anything else",
                "what brings",
                "problem",
                "what happened",
                "what(?:'s| is) (?:wrong|going on|on your mind|up|the (?:issue|matter|reason))",
                "explain",
                r"why\b",
                "go ahead",
                "how (?:are|do) you feel",
            ],
        ),
    ]
]
_YES_OR_NO = re.compile(
    r"(?:and|so|or|okay|great|right|well|then|but|sorry|also|just|alright|all right)? ?"
    r"(?:is|are|was|were|do|does|did|have|has|had|can|could|would|will|shall|should|may|am|isn't|aren't|don't|didn't"
    r"|ready|any|anything|still|correct|right)\b"
)
_SENTENCES = re.compile(r"[^.!?]+[.!?]*")


def expected_answer(turns: Sequence[Turn]) -> Expected:
    """What the turn before the last user turn lets expect, if it was the assistant's."""
    said = ""
    for turn in turns[:-1]:
        said = turn.content if turn.role == "assistant" else "" if turn.role == "user" else said
    sentences = [s for s in _SENTENCES.findall(said[-2000:]) if normalised(s)]
    if not sentences:
        return Expected.ANYTHING
    last = sentences[-1]
    plain = normalised(last)
    asks = last.rstrip().endswith("?")
    if not asks and not re.match(
        r"(?:please|could|can|what|how|when|where|which|tell|give|read|and your|say)\b", plain
    ):
        return Expected.OPEN if re.search(r"tell me|help you|go ahead", plain) else Expected.STATEMENT
    if asks and _YES_OR_NO.match(plain) and " or " not in plain:
        kind = _kind(plain)
        named = kind in (Expected.SPELLING, Expected.EMAIL, Expected.NAME, Expected.PHONE, Expected.POSTCODE,
                         Expected.CARD, Expected.CODE, Expected.OPEN)  # fmt: skip
        requested = re.match(r"(?:can|could|would|may|will) (?:i|you|we)\b", plain)
        return (
            kind
            if kind is not None and named and (requested or kind is Expected.OPEN)
            else Expected.YES_OR_NO
        )
    return _kind(plain) or Expected.WHICH


def _kind(plain: str) -> Expected | None:
    return next((kind for kind, pattern in _KINDS if pattern.search(plain)), None)
