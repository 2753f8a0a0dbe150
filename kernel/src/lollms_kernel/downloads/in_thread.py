"""Blocking work in threads: what must be over when the caller goes on, and what nobody needs to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def finished(work: Callable[[], T], stop: threading.Event | None = None) -> T:
    """What `work` gives, done in a thread; cancelled or not, it is over when this returns.

    `stop` is set when this is cancelled: work that takes long looks at it.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop.set()
        with suppress(Exception):  # whatever it is, nobody waits for the result any more
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
        except Exception:  # raised below
            break
    if cancelled:
        raise asyncio.CancelledError
    if running is not None and not running.cancelled():
        running.result()


async def abandonable(work: Callable[[], T]) -> T:
    """What `work` gives, done in a thread that keeps nobody from stopping: cancelled, it is left to itself."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def tell(error: BaseException | None, result: T | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]  # there is one where there is no error

    def run() -> None:
        result, problem = None, None
        try:
            result = work()
        except BaseException as error:  # told to whoever waits
            problem = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, problem, result)

    threading.Thread(target=run, name="lollms-hub", daemon=True).start()
    return await outcome
