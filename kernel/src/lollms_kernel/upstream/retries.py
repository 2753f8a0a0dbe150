"""Trying again after a refusal that passes, with growing pauses."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

import msgspec

from ..errors import LollmsError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Pauses(msgspec.Struct, frozen=True, kw_only=True):
    """How long to pause between tries; sleep and randomness are fields so that tests need neither."""

    first: float = 0.5
    longest: float = 8.0
    patience: float = 30.0
    """A service that asks for a longer pause than this is not asked again; the client hears how long to wait."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random

    def before(self, retry: int, asked: float | None) -> float:
        """Seconds before the `retry`-th further try (from 0): what the service asked for, or a power of two that
        is shortened by up to a half, so that many clients do not come back at the same moment."""
        longest: float = min(self.first * 2**retry, self.longest)
        own = longest * (1 - self.jitter() / 2)
        return own if asked is None else max(asked, 0.0) + own / 4


SYSTEM = Pauses()


async def retrying(
    attempt: Callable[[], Awaitable[T]], *, retries: int, pauses: Pauses = SYSTEM, what: str = "the service"
) -> T:
    """What `attempt` gives; called again up to `retries` times while it raises an error that is `retryable`.

    An attempt must be over with the first byte of an answer: what comes later cannot be asked for twice.
    """
    for retry in range(retries):
        try:
            return await attempt()
        except LollmsError as error:
            if not error.retryable or (error.retry_after or 0) > pauses.patience:
                raise
            pause = pauses.before(retry, error.retry_after)
            logger.info("%s: %s Try %d of %d in %.1f s.", what, error.message, retry + 2, retries + 1, pause)
        await pauses.sleep(pause)
    return await attempt()


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a response asks to wait: `retry-after-ms`, or `Retry-After` as seconds or as a date.

    Looks `headers` up by lower-case names, which suits httpx's and plain dictionaries of such names.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now())
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    """A finite number that is not negative, else None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None
