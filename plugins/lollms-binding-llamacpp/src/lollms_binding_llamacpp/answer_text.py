"""The text of one answer as its tokens come: characters, stop strings, limits that depend on the text."""

from __future__ import annotations

import time
from collections.abc import Collection

from lollms_kernel.types import TokenProbability

from .job import Answer, Piece, StopReason
from .parameters import Sampling
from .text import StopStrings, Utf8Stream


class AnswerText:
    """Feed it tokens; it gives pieces to show and knows when the answer has ended."""

    def __init__(self, sampling: Sampling, ends: Collection[int], want_tokens: bool) -> None:
        self._sampling = sampling
        self._ends = ends
        self._want = want_tokens
        self._utf8 = Utf8Stream()
        self._stops = StopStrings(sampling.stop)
        self._tokens: list[int] = []
        self._probabilities: list[TokenProbability] = []
        self._line: str | None = None
        self._first: float | None = None
        self.count = 0
        self.has_new_line = False
        self.truncated = False
        self.reason: StopReason | None = None
        """Why it has ended; None as long as it goes on."""

    def add(self, token: int, data: bytes, probability: TokenProbability | None) -> Piece | None:
        """What can be shown after this token, if anything."""
        self.count += 1
        if self._want:
            self._tokens.append(token)
            if probability is not None:
                self._probabilities.append(probability)
        text = ""
        if token in self._ends:
            self.reason = "eos"
            text = self._rest()
        else:
            text = self._stops.feed(self._utf8.feed(data))
            if self._stops.matched is not None:
                self.reason = "word"
            self._look_at_lines(text)
            if self.reason is None and self.count == self._sampling.max_tokens:
                self.reason = "limit"
            if self.reason == "limit":
                text += self._rest()
        return self._piece(text)

    def end(self, reason: StopReason) -> Piece | None:
        """End it for a reason of the engine's; gives what was held back."""
        self.reason = reason
        return self._piece(self._rest())

    def answer(self) -> Answer:
        """How it went."""
        assert self.reason is not None
        return Answer(self.reason, self.count, self._stops.matched, self.has_new_line, self.truncated)

    def _rest(self) -> str:
        return self._stops.finish()

    def _piece(self, text: str) -> Piece | None:
        if not self._want:
            return Piece(text) if text else None
        held = self._stops.holds or self._utf8.holds
        if not text and held and self.reason is None:
            return None
        piece = Piece(text, tuple(self._tokens), tuple(self._probabilities))
        self._tokens, self._probabilities = [], []
        return piece if text or piece.tokens else None

    def _look_at_lines(self, text: str) -> None:
        if "\n" in text:
            self.has_new_line = True
            limit = self._sampling.t_max_predict_ms
            if limit > 0 and self._first is not None and (time.perf_counter() - self._first) * 1000 > limit:
                self.reason = self.reason or "limit"
        if self._sampling.n_indent > 0:
            self._look_at_indentation(text)
        if self._first is None:
            self._first = time.perf_counter()

    def _look_at_indentation(self, text: str) -> None:
        """End the answer at the first line that is indented less than asked for."""
        for character in text:
            if character == "\n":
                self._line = ""
            elif self._line is not None:
                if character in " \t":
                    self._line += character
                    continue
                if len(self._line) < self._sampling.n_indent:
                    self.reason = self.reason or "limit"
                self._line = None
