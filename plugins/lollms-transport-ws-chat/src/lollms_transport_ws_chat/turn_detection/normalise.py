"""One spelling for typed and recognised speech: lower case, no punctuation, single spaces."""

from __future__ import annotations

import re
import unicodedata

_SPACES = re.compile(r"\s+")
_KEPT = {"'", "-"}
_QUOTES = str.maketrans("\u2019\u2018\u02bc", "'''")

MAX_CHARACTERS = 8000
"""Only the end of a longer text is looked at: where a turn ends is said there."""


def normalised(text: str) -> str:
    """NFKC, lower case, every mark of punctuation dropped but ' and -, white space single."""
    text = unicodedata.normalize("NFKC", text[-MAX_CHARACTERS:].lower()).translate(_QUOTES)
    kept = (c for c in text if c in _KEPT or not unicodedata.category(c).startswith("P"))
    return _SPACES.sub(" ", "".join(kept)).strip()
