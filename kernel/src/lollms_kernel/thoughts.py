"""Tells reasoning from answer: the one incremental parser of `<think>…</think>`.

Tags may come in any case and split over any number of pieces. A block that never closes is all thought; a lone
`</think>` is plain text; blocks do not nest. This is what lollms_server does with a finished text, made to stream.
"""

from __future__ import annotations

import re

from .types import TextDelta, ThoughtDelta

_OPEN = "<think>"
_CLOSE = "</think>"
_TAGS = {tag: re.compile(re.escape(tag), re.IGNORECASE) for tag in (_OPEN, _CLOSE)}

INCOMPLETE = "--- Incomplete Thought Block ---"
EMPTY_INCOMPLETE = "(Tag was empty or at end of text)"


class ThoughtParser:
    """Feed it text as it comes; the pieces it gives back do not depend on how the text was split."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._block = -1

    def feed(self, text: str) -> list[TextDelta | ThoughtDelta]:
        """The deltas that are certain now; at most a partial tag (8 characters) is held back."""
        if not self._inside and not self._held and "<" not in text:
            return [TextDelta(text)] if text else []
        deltas: list[TextDelta | ThoughtDelta] = []
        self._held += text
        while True:
            tag = _CLOSE if self._inside else _OPEN
            match = _TAGS[tag].search(self._held)
            if match is None:
                break
            self._emit(deltas, self._held[: match.start()], closes=self._inside)
            self._held = self._held[match.end() :]
            self._inside = not self._inside
            if self._inside:
                self._block += 1
        keep = _partial_tag(self._held, tag)
        self._emit(deltas, self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]
        return deltas

    def finish(self) -> list[TextDelta | ThoughtDelta]:
        """What was held back, now that no more text comes."""
        deltas: list[TextDelta | ThoughtDelta] = []
        held, self._held = self._held, ""
        if self._inside:
            deltas.append(ThoughtDelta(held, self._block, "incomplete"))
            self._inside = False
        else:
            self._emit(deltas, held)
        return deltas

    def _emit(self, deltas: list[TextDelta | ThoughtDelta], text: str, closes: bool = False) -> None:
        if self._inside and (text or closes):
            deltas.append(ThoughtDelta(text, self._block, "closed" if closes else ""))
        elif text:
            deltas.append(TextDelta(text))


def _partial_tag(text: str, tag: str) -> int:
    """How many characters at the end of `text` may be the beginning of `tag`."""
    tail = text[-(len(tag) - 1) :].lower()
    return next((size for size in range(len(tail), 0, -1) if tag.startswith(tail[-size:])), 0)
