"""A detector for use on an event loop: in a thread, within a time, and with the rule to fall back on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Annotated

import msgspec
from msgspec import Meta

from .detector import Turn, TurnDetector
from .one_thread import OneThread
from .rule import RuleDetector

logger = logging.getLogger(__name__)

LIMIT = 3.0
"""Seconds that a detector may take."""

MAX_WAITING = 64
"""Turns that may wait for a detector; the rule judges those that come on top."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a turn is complete, and why."""

    probability: Annotated[
        float, Meta(description="How likely it is that the turn is complete, from 0 to 1.")
    ]
    threshold: Annotated[float, Meta(description="The probability from which on it counts as complete.")]
    complete: bool
    detector: Annotated[
        str, Meta(description="What judged: `rule` in place of another where that failed or was late.")
    ]


class Judge:
    """Judges turns with one detector, one at a time. Owns the detector: `close` closes both."""

    def __init__(self, detector: TurnDetector, *, limit: float = LIMIT) -> None:
        self.detector = detector
        self._limit = limit
        self._fallback: TurnDetector = RuleDetector()
        self._waiting = 0
        self._late = 0
        self._told = ""
        self._thread: OneThread | None = None
        if not detector.instant:
            self._thread = OneThread("turn-detector")

    async def judge(self, turns: Sequence[Turn], language: str | None = None) -> Verdict:
        """The detector's verdict on the last turn; the rule's where it fails, is late or has too much to do.

        Where even the rule fails the turn counts as complete: an early answer is better than none. Never raises.
        """
        try:
            return _verdict(self.detector, await self._asked(turns, language), language)
        except Exception as error:  # a voice chat goes on whatever a model does
            self._tell(error)
        try:
            return _verdict(self._fallback, self._fallback.probability(turns, language), language)
        except Exception:  # the same
            logger.exception("the rule failed too, so the turn counts as complete")
        return Verdict(probability=1.0, threshold=0.0, complete=True, detector="none")

    def close(self) -> None:
        """Give back the thread and the model. Idempotent; a call that hangs is left behind."""
        if self._thread is not None:
            self._thread.end()
        if not self._late:
            self.detector.close()

    async def _asked(self, turns: Sequence[Turn], language: str | None) -> float:
        if self._thread is None:
            return self.detector.probability(turns, language)
        if self._late or self._waiting >= MAX_WAITING:
            raise TimeoutError("it is still busy with earlier turns")
        self._waiting += 1
        asked = self._thread.submit(self.detector.probability, turns, language)
        loop = asyncio.get_running_loop()
        asked.add_done_callback(lambda _: _post(loop, self._answered))
        wrapped = asyncio.wrap_future(asked)
        try:
            done, _ = await asyncio.wait([wrapped], timeout=self._limit)
        except asyncio.CancelledError:
            asked.cancel()  # unless it has begun
            raise
        if not done:
            self._give_up(asked, loop)
            raise TimeoutError(f"it took more than {self._limit:g} s")
        return wrapped.result()

    def _tell(self, error: Exception) -> None:
        """Log a failure; the same one again only for those who look closely."""
        reason = getattr(error, "detail", None) or f"{type(error).__name__}: {error}"
        level = logging.DEBUG if reason == self._told else logging.ERROR
        self._told = reason
        logger.log(level, "turn detector `%s` failed, the rule judges: %s", self.detector.name, reason)

    def _answered(self) -> None:
        self._waiting -= 1

    def _give_up(self, asked: Future[float], loop: asyncio.AbstractEventLoop) -> None:
        """Ask no more until the call that is late has ended; one that has not begun yet never does."""
        if asked.cancel():
            return
        self._late += 1
        asked.add_done_callback(lambda _: _post(loop, self._late_call_ended))

    def _late_call_ended(self) -> None:
        self._late -= 1


def _verdict(detector: TurnDetector, probability: float, language: str | None) -> Verdict:
    threshold = detector.threshold_for(language)
    if not 0 <= probability <= 1:  # not a number included
        raise ValueError(f"{probability} is no probability")
    return Verdict(
        probability=probability,
        threshold=threshold,
        complete=probability >= threshold,
        detector=detector.name,
    )


def _post(loop: asyncio.AbstractEventLoop, action: object) -> None:
    """From a thread; a loop that has ended needs to know no more."""
    try:
        loop.call_soon_threadsafe(action)  # type: ignore[arg-type]
    except RuntimeError:
        logger.debug("a turn was judged after the end")
