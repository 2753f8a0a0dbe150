"""Makes text of token bytes as they come, and stops at stop strings without ever showing a part of one."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Utf8Stream:
    """Decodes UTF-8 whose characters may be split over tokens; what is not UTF-8 becomes U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> str:
        """The characters that are complete now."""
        return self._decoder.decode(data)

    @property
    def holds(self) -> bool:
        """Whether a character is incomplete."""
        return bool(self._decoder.getstate()[0])

    def finish(self) -> str:
        """What is left of an incomplete character."""
        return self._decoder.decode(b"", final=True)


class StopStrings:
    """Passes text on until one of the stop strings is complete; the one that is complete first wins.

    Text that may be the beginning of a stop string is held back until it is known to be none, so the result is
    the same however the text is split.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.matched: str | None = None
        """The stop string that was found; nothing is passed on any more."""

    @property
    def holds(self) -> bool:
        """Whether text is held back."""
        return bool(self._held)

    def feed(self, text: str) -> str:
        """The text that can be shown now."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        found = min(
            ((at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0), default=None
        )
        if found is not None:
            _, at, self.matched = found
            self._held = ""
            return text[:at]
        keep = max(_overlap(text, stop) for stop in self._stops)
        shown, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return shown

    def finish(self) -> str:
        """What was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
