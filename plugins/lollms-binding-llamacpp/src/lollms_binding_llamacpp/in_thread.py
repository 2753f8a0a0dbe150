"""Blocking calls in threads, for calls that must not go on when their caller believes they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """The result of `call`, run in a thread. Being cancelled waits for its end first.

    `asyncio.to_thread` leaves a cancelled call running; a model that it uses could be unloaded under it.
    """
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
