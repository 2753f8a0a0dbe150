"""What the network sees of a turn: ids of its last words, and ids of what the whole tells."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence

from .detector import Turn, spoken_last
from .history import Expected, expected_answer
from .languages import language
from .normalise import normalised
from .punctuation import final_mark
from .rule import is_open

POSITIONS = 20
FIRST = 3
"""Words kept from the beginning of a longer turn; the others are its last ones."""

UNKNOWN, PADDING, START = 0, 1, 2
SPECIALS = ("<unknown>", "<padding>", "<start>")
SUFFIXES = 512
ENDINGS = 128
PER_WORD = 3

DIGIT_COUNTS = 18
LETTER_COUNTS = 9
LENGTHS = 8
MARKS = ("", "end", "question", "open")
GLOBALS = (len(Expected), DIGIT_COUNTS, LETTER_COUNTS, 2 * len(MARKS), 3, LENGTHS)
"""How many values each id of the whole has."""

_DIGITS = {word: 1 for word in "zero oh one two three four five six seven eight nine".split()}
_DIGITS |= {word: 2 for word in "ten eleven twelve thirteen fourteen fifteen sixteen".split()}
_DIGITS |= {word: 2 for word in "seventeen eighteen nineteen".split()}
_TENS = set("twenty thirty forty fifty sixty seventy eighty ninety".split())
_REPEATED = {"double": 2, "triple": 3}
_STYLED = re.compile(r"[.?!,;:…]|[A-Z][a-z]")


def featurised(turns: Sequence[Turn], vocabulary: Mapping[str, int]) -> tuple[list[list[int]], list[int]]:
    """Ids of the words, POSITIONS x PER_WORD, and ids of the whole, in the order of GLOBALS."""
    text = spoken_last(turns)
    return word_ids(normalised(text).split(), vocabulary), global_ids(text, expected_answer(turns))


def word_ids(words: Sequence[str], vocabulary: Mapping[str, int]) -> list[list[int]]:
    """Ids of the words, aligned at the end: where the turn breaks off is always in the same place."""
    room = POSITIONS - 1
    if len(words) > room:
        words = [*words[:FIRST], *words[FIRST - room :]]
    rows = [
        [vocabulary.get(word, UNKNOWN), _hash(word[-3:]) % SUFFIXES, _hash(word[-2:]) % ENDINGS]
        for word in words
    ]
    padding = [[PADDING, 0, 0]] * (POSITIONS - 1 - len(rows))
    return [*padding, [START, 0, 0], *rows]


def global_ids(text: str, expected: Expected) -> list[int]:
    """Ids of what was asked, of numbers and letters at the end, of the final mark, of the rule's opinion, of length."""
    plain = normalised(text)
    words = plain.split()
    mark = final_mark(text)
    if mark == "end" and not text.rstrip().endswith("."):
        mark = "question"
    lists = language("en")
    rule = 2 if plain in lists.whole else int(is_open(plain, lists))
    return [
        int(expected),
        min(digits_at_end(words), DIGIT_COUNTS - 1),
        min(letters_at_end(words), LETTER_COUNTS - 1),
        MARKS.index(mark) + len(MARKS) * bool(_STYLED.search(text)),
        rule,
        min(len(words), LENGTHS - 1),
    ]


def digits_at_end(words: Sequence[str]) -> int:
    """How many digits the numbers at the end have when written: "five double two" has three, "forty two" two."""
    count, ones = 0, False
    for position in range(len(words) - 1, -1, -1):
        word = words[position]
        if word in _REPEATED:
            count += _REPEATED[word] - 1
            ones = False
        elif word in _TENS:
            count += 1 if ones else 2
            ones = False
        elif word in _DIGITS:
            count += _DIGITS[word]
            ones = _DIGITS[word] == 1
        elif word.isdecimal():
            count += len(word)
            ones = False
        elif not (len(word) == 1 and count):
            break
    return count


def letters_at_end(words: Sequence[str]) -> int:
    """How many single letters the turn ends with."""
    count = 0
    for word in reversed(words):
        if len(word) != 1 or not word.isalpha():
            break
        count += 1
    return count


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())  # never hash(), which differs from process to process
