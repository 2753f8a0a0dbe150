"""Blocking work in threads, which is over when the caller goes on, cancelled or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def finished(work: Callable[[], T]) -> T:
    """What `work` gives, done in a thread; cancelled or not, it is over when this returns."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await settled(running)
        raise


async def settled(running: asyncio.Future[T] | None) -> None:
    """Wait for a thread, however often this is cancelled meanwhile; raises what went wrong in it, unless cancelled."""
    cancelled = False
    while running is not None and not running.done():
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    if running is not None and not running.cancelled() and running.exception() is not None:
        raise running.exception()  # type: ignore[misc]  # it is not None
