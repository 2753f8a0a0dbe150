"""Interrupt ends what a task waits for, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from lollms_kernel.errors import Cancelled, ShuttingDown
from lollms_kernel.interrupt import Interrupt


async def test_trip_raises_the_error_at_the_guarded_await_after_clean_up() -> None:
    interrupt, cleaned = Interrupt(), asyncio.Event()

    async def body() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async def consumer() -> None:
        await interrupt.guard(body())

    task = asyncio.create_task(consumer())
    await asyncio.sleep(0)
    interrupt.trip(ShuttingDown("stop"))
    with pytest.raises(ShuttingDown):
        await task
    assert cleaned.is_set()
    assert not task.cancelled()


async def test_trip_before_the_await_raises_without_starting_it() -> None:
    interrupt = Interrupt()
    interrupt.trip(Cancelled("no"))
    with pytest.raises(Cancelled):
        await interrupt.guard(asyncio.sleep(100))


async def test_a_real_cancellation_stays_one() -> None:
    interrupt = Interrupt()
    task = asyncio.create_task(_guarded_forever(interrupt))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _guarded_forever(interrupt: Interrupt) -> None:
    await interrupt.guard(asyncio.Event().wait())
