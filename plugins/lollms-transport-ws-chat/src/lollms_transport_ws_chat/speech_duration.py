"""How long it takes to say a text aloud, estimated from its letters, and how much of it was said after a while.

Words are no measure: Chinese and Japanese have none between blanks. So every script has a speed of its own, in
characters a second; digits are read out as words, sentence ends and commas are pauses.
"""

from __future__ import annotations

import re
import unicodedata

LEAD_IN = 0.25
SHORTEST = 0.6
_DIGIT = 0.28
_BLANK = 1 / 14.5
_SENTENCE_END = 0.38
_COMMA = 0.18
_OTHER_SCRIPT = 12.0
_SPEEDS = {
    "LATIN": 14.5,
    "CYRILLIC": 13.5,
    "CJK": 4.5,
    "HIRAGANA": 7.0,
    "KATAKANA": 7.0,
    "HANGUL": 5.5,
    "ARABIC": 9.0,
    "HEBREW": 9.0,
    "DEVANAGARI": 11.5,
}
"""Letters a second, by the first word of their Unicode names."""

_CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_ADDRESS = re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE)
_WORD = re.compile(r"\s*\S+")
_SENTENCE_ENDS = frozenset(".!?…\u3002\uff01\uff1f")  # and the full-width ones
_COMMAS = frozenset(",;:\u3001\uff0c\uff1b\uff1a")


def spoken_seconds(text: str, *, rate: float = 1.0, longest: float | None = None) -> float:
    """Seconds, rounded to milliseconds: more words never take less. `rate` 2 speaks twice as fast.

    Code blocks and web addresses are not read aloud and count nothing.
    """
    spoken = _ADDRESS.sub(" ", _CODE_BLOCK.sub(" ", text)).strip()
    seconds = LEAD_IN + sum(map(_seconds, spoken))
    if spoken and spoken[-1] in _SENTENCE_ENDS:
        seconds -= _SENTENCE_END  # nothing follows that the pause would part it from
    seconds = max(SHORTEST, seconds / rate)
    return round(seconds if longest is None else min(seconds, longest), 3)


def said_within(text: str, seconds: float, *, whole: float) -> str:
    """The words of `text` that were said after `seconds`, if saying all of it takes `whole` seconds."""
    if seconds >= whole:
        return text
    share = max(0.0, seconds) / whole
    total = sum(map(_seconds, text)) or 1.0
    said = passed = 0.0
    end = 0
    for word in _WORD.finditer(text):
        passed += sum(map(_seconds, word.group()))
        if passed / total > share:
            break
        end, said = word.end(), passed
    if end == 0 and said == 0.0 and not any(map(str.isspace, text)):
        return _characters_within(text, share * total)  # a script that writes no blanks
    return text[:end]


def _characters_within(text: str, seconds: float) -> str:
    passed = 0.0
    for place, character in enumerate(text):
        passed += _seconds(character)
        if passed > seconds:
            return text[:place]
    return text


def _seconds(character: str) -> float:
    if character.isspace():
        return _BLANK
    if character in _SENTENCE_ENDS:
        return _SENTENCE_END
    if character in _COMMAS:
        return _COMMA
    if character.isdecimal():
        return _DIGIT
    if character.isalpha():
        script = unicodedata.name(character, "").partition(" ")[0]
        return 1 / _SPEEDS.get(script, _OTHER_SCRIPT)
    return 0.0
