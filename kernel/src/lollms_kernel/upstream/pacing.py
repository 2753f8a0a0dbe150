"""Time limits on a stream that comes from elsewhere, and its end on every way out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from ..errors import GenerationFailed, Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLOSING = 5.0
"""Seconds that closing a connection may take before it is left to the garbage collector."""


def _any(_item: object) -> bool:
    return True


async def paced(
    start: Callable[[], Awaitable[AsyncIterator[T]]],
    *,
    first: float,
    idle: float,
    begun: Callable[[T], bool] = _any,
    what: str = "The service",
) -> AsyncGenerator[T, None]:
    """The items of the stream that `start` opens, which is closed whichever way this ends.

    Opening it and everything up to the first item for which `begun` holds may take `first` seconds together (some
    services greet before they think); after that, no gap may be longer than `idle`.
    Raises Unavailable or GenerationFailed. A slow consumer costs the service nothing of its time.
    """
    loop = asyncio.get_running_loop()
    deadline: float | None = loop.time() + first
    stream: AsyncIterator[T] | None = None
    try:
        async with asyncio.timeout_at(deadline):
            stream = aiter(await start())
        while True:
            try:
                async with asyncio.timeout_at(loop.time() + idle if deadline is None else deadline):
                    item = await anext(stream)
            except StopAsyncIteration:
                return
            if deadline is not None:
                if begun(item):
                    deadline = None
                else:
                    asked = loop.time()
                    yield item
                    deadline += loop.time() - asked
                    continue
            yield item
    except TimeoutError:
        if deadline is None:
            raise GenerationFailed(
                f"{what} sent nothing for {idle:g} s in the middle of its answer.",
                hint="Try again; `idle_timeout` of the instance allows for longer gaps.",
            ) from None
        raise Unavailable(
            f"{what} did not begin to answer within {first:g} s.",
            hint="It may be loading a large model or be busy; `first_token_timeout` of the instance allows for more.",
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
