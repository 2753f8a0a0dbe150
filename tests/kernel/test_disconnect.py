"""Work ends with the connection that it is for, and has cleaned up when that is known."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lollms_kernel.disconnect import unless_gone


class Connection:
    """The receiving side of a connection, and work that holds something while it runs."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.working = asyncio.Event()
        self.held = False

    async def receive(self) -> Any:
        await self.closed.wait()
        return {"type": "http.disconnect"}

    async def work(self) -> None:
        self.held = True
        try:
            self.working.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # cleaning up may take its time
            self.held = False


async def test_given_work_when_the_client_leaves_then_it_has_cleaned_up_on_return() -> None:
    connection = Connection()
    waiting = asyncio.ensure_future(unless_gone(connection.receive, connection.work()))
    await connection.working.wait()
    assert connection.held
    connection.closed.set()
    await waiting
    assert not connection.held


async def test_given_work_when_it_is_cancelled_from_outside_then_it_cleans_up_too() -> None:
    connection = Connection()
    waiting = asyncio.ensure_future(unless_gone(connection.receive, connection.work()))
    await connection.working.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not connection.held


async def test_given_work_that_fails_when_awaited_then_its_error_passes_through() -> None:
    async def fail() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        await unless_gone(Connection().receive, fail())


async def test_given_work_that_ends_when_awaited_then_nobody_watches_any_longer() -> None:
    async def end() -> None:
        return

    await unless_gone(Connection().receive, end())
    assert asyncio.all_tasks() == {asyncio.current_task()}
