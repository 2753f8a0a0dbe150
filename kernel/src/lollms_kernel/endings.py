"""Ends an answer where one of some texts begins, upper and lower case alike, so that the text never appears.

Engines know stop strings too, but compare every letter exactly, and some services take only four of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from .types import TextDelta


class Ending:
    """Feed it the deltas of an answer; what may be the beginning of a stop text is held back until that is known."""

    def __init__(self, texts: Sequence[str]) -> None:
        # Longer ones first: of two that begin at the same place, either cuts there.
        self._pattern = re.compile("|".join(map(re.escape, texts)), re.IGNORECASE)
        self._texts = [text.casefold() for text in texts]
        self._longest = max(map(len, texts))
        self._held: list[TextDelta] = []
        self.reached = False
        """Whether a stop text has come: nothing may follow."""

    def feed(self, delta: TextDelta) -> list[TextDelta]:
        """What can be shown for certain."""
        if self.reached:
            return []
        self._held.append(delta)
        text = "".join(held.text for held in self._held)
        found = self._pattern.search(text)
        open_from = len(text) - self._tail(text)
        if found is not None and found.start() <= open_from:
            self.reached = True
            return self._take(found.start())
        return self._take(open_from)  # a longer stop text may begin before the one that was found

    def finish(self) -> list[TextDelta]:
        """What was held back, now that no more text comes."""
        if self.reached:
            return []
        found = self._pattern.search("".join(held.text for held in self._held))
        if found is not None:
            self.reached = True
            return self._take(found.start())
        held, self._held = self._held, []
        return held

    def _tail(self, text: str) -> int:
        """How many characters at the end may begin a stop text."""
        for length in range(min(len(text), self._longest - 1), 0, -1):
            end = text[-length:].casefold()
            if any(stop.startswith(end) for stop in self._texts):
                return length
        return 0

    def _take(self, size: int) -> list[TextDelta]:
        """The first `size` held characters; a delta that is cut keeps its tokens with its second part."""
        taken: list[TextDelta] = []
        while self._held:
            first = self._held[0]
            if len(first.text) > size or (not size and first.text):
                if size:
                    taken.append(TextDelta(first.text[:size]))
                    self._held[0] = msgspec.structs.replace(first, text=first.text[size:])
                break
            size -= len(first.text)
            taken.append(self._held.pop(0))
        return taken
