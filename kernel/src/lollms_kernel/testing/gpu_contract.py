"""What every GPU strategy promises, as a pytest class: subclass it and set `strategy_type`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import ClassVar

import pytest

from ..contracts import GpuStrategy
from ..errors import QueueTimeout
from ..types import GpuNeed

NEED = GpuNeed(required=True)


class GpuStrategyContract:
    """Subclass it as `class TestMine(GpuStrategyContract)`; `places` is how many leases fit with limit 2."""

    strategy_type: ClassVar[type[GpuStrategy]]
    places: ClassVar[int | None]
    """None: any number."""

    def make(self, timeout: float = 30.0) -> GpuStrategy:
        """A strategy with limit 2."""
        return self.strategy_type(2, timeout)

    async def test_lease_counts_while_inside_and_not_after(self) -> None:
        strategy = self.make()
        async with strategy.lease("b", NEED):
            assert strategy.status()["active"] == 1
        assert strategy.status()["active"] == 0

    async def test_work_without_need_of_the_gpu_never_waits(self) -> None:
        strategy = self.make()
        async with AsyncExitStack() as held:
            for _ in range(self.places or 1):
                await held.enter_async_context(strategy.lease("b", NEED))
            async with asyncio.timeout(5), strategy.lease("c", GpuNeed()):
                pass

    async def test_lease_is_freed_whatever_the_body_raises_and_the_error_keeps_its_type(self) -> None:
        strategy = self.make()
        for error in (ValueError("boom"), TimeoutError("mine"), asyncio.CancelledError()):
            with pytest.raises(type(error)):
                async with strategy.lease("b", NEED):
                    raise error
            assert strategy.status()["active"] == 0

    async def test_no_more_than_the_places_are_inside(self) -> None:
        strategy, inside, most = self.make(), 0, 0

        async def work() -> None:
            nonlocal inside, most
            async with strategy.lease("b", NEED):
                inside += 1
                most = max(most, inside)
                for _ in range(3):
                    await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(work() for _ in range(8)))
        assert most == (8 if self.places is None else self.places)

    async def test_waiting_too_long_is_a_queue_timeout(self) -> None:
        strategy = self.make(timeout=0.05)
        if self.places is None:
            return
        held = [strategy.lease("b", NEED) for _ in range(self.places)]
        for lease in held:
            await lease.__aenter__()
        with pytest.raises(QueueTimeout):
            async with strategy.lease("late", NEED):
                pytest.fail("entered without a place")
        for lease in held:
            await lease.__aexit__(None, None, None)
        async with asyncio.timeout(5), strategy.lease("again", NEED):
            pass

    async def test_a_waiter_that_is_cancelled_leaves_no_trace(self) -> None:
        strategy = self.make()
        if self.places is None:
            return
        held = [strategy.lease("b", NEED) for _ in range(self.places)]
        for lease in held:
            await lease.__aenter__()

        async def wait() -> None:
            async with strategy.lease("late", NEED):
                pass

        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])
        for lease in held:
            await lease.__aexit__(None, None, None)
        assert strategy.status()["active"] == 0
        assert strategy.status()["waiting"] == 0

    async def test_requests_that_share_hold_one_lease_together(self) -> None:
        strategy, shared = self.make(), GpuNeed(required=True, share="slots")
        async with asyncio.timeout(5):
            async with strategy.lease("b", shared), strategy.lease("b", shared), strategy.lease("b", shared):
                assert self.places is None or strategy.status()["active"] == 1
        assert strategy.status()["active"] == 0
