"""Pieces of speech that belong together, joined into one text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH")


def joined(parts: Sequence[str]) -> str:
    """The parts with a blank between them, or none between two characters of a script that writes none."""
    text = ""
    for part in parts:
        gap = "" if not text or (_unspaced(text[-1]) and _unspaced(part[:1])) else " "
        text += gap + part
    return text


def _unspaced(character: str) -> bool:
    return bool(character) and unicodedata.name(character, "").startswith(_UNSPACED)
