"""Time limits on a stream that comes from elsewhere, and its end on every way out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from .failures import TooSlow

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLOSING = 5.0
"""Seconds that closing a connection may take before it is left to the garbage collector."""


def anything(_item: object) -> bool:
    """The default of `begun`: any item begins the answer."""
    return True


async def paced(
    start: Callable[[], Awaitable[AsyncIterator[T]]],
    *,
    first: float,
    idle: float,
    begun: Callable[[T], bool] = anything,
    what: str = "The service",
) -> AsyncGenerator[T, None]:
    """The items of the stream that `start` opens, which is closed whichever way this ends.

    Opening it and everything up to the first item for which `begun` holds may take `first` seconds together (some
    services greet before they think); after that, no gap may be longer than `idle`.
    Raises TooSlow. A slow consumer costs the service nothing of its time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + first
    waiting = True
    timer = asyncio.timeout_at(deadline)
    stream: AsyncIterator[T] | None = None
    try:
        async with timer:
            stream = aiter(await start())
        while True:
            timer = asyncio.timeout_at(deadline if waiting else loop.time() + idle)
            try:
                async with timer:
                    item = await anext(stream)
            except StopAsyncIteration:
                return
            waiting = waiting and not begun(item)
            handed_over = loop.time()
            yield item
            deadline += loop.time() - handed_over
    except TimeoutError:
        if not timer.expired():
            raise  # the source's own
        if waiting:
            raise TooSlow(
                f"{what} did not begin to answer within {first:g} s.",
                hint="It may be loading a large model or be busy; `first_token_timeout` of the instance allows for "
                "more.",
            ) from None
        raise TooSlow(
            f"{what} sent nothing for {idle:g} s in the middle of its answer.",
            hint="Try again; `idle_timeout` of the instance allows for longer gaps.",
        ) from None
    finally:
        if stream is not None:
            await _close(stream, what)


async def _close(stream: Any, what: str) -> None:
    """Close a generator (`aclose`) or a vendor's stream object (`close`)."""
    close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
    if close is None:
        return
    try:
        async with asyncio.timeout(CLOSING):
            await close()
    except TimeoutError:
        logger.warning("%s: closing its stream took longer than %g s; left alone.", what, CLOSING)
