"""A bounded queue in which every tenant gets its turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from .errors import LollmsError, QueueFull, QueueTimeout


class FairQueue:
    """Lets `running` bodies in at once; more wait, tenant by tenant in turn, first come first served within one.

    `waiting` bounds those who wait (None: unbounded, for inner queues whose callers are bounded already).
    `timeout` in seconds bounds each wait.
    """

    def __init__(
        self,
        *,
        running: int,
        waiting: int | None,
        timeout: float,
        what: str = "its turn",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = running
        self._waiting_limit = waiting
        self._timeout = timeout
        self._what = what
        self._clock = clock
        self._running = 0
        self._tenants: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._mean_hold = 1.0

    @property
    def running(self) -> int:
        """How many are in."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(queue) for queue in self._tenants.values())

    @asynccontextmanager
    async def turn(self, tenant: str = "") -> AsyncIterator[float]:
        """Be inside; gives the seconds that the wait took. Raises QueueFull at once, QueueTimeout after waiting."""
        waited = await self.enter(tenant)
        entered = self._clock()
        try:
            yield waited
        finally:
            self._mean_hold += 0.2 * (self._clock() - entered - self._mean_hold)
            self.leave()

    async def enter(self, tenant: str = "") -> float:
        """Take a place, after waiting if need be; pair it with `leave`."""
        if self._running < self._limit and not self._tenants:
            self._running += 1
            return 0.0
        if self._waiting_limit is not None and self.waiting >= self._waiting_limit:
            raise self._full()
        started = self._clock()
        place = self._line_up(tenant)
        try:
            async with asyncio.timeout(self._timeout):
                await place
        except TimeoutError:
            self._give_up(tenant, place)
            raise self._timed_out() from None
        except BaseException:
            self._give_up(tenant, place)
            raise
        return self._clock() - started

    def leave(self) -> None:
        """Give the place to whoever is next."""
        while self._tenants:
            tenant, queue = next(iter(self._tenants.items()))
            place = queue.popleft()
            if queue:
                self._tenants.move_to_end(tenant)
            else:
                del self._tenants[tenant]
            if not place.done():
                place.set_result(None)
                return
        self._running -= 1

    def _line_up(self, tenant: str) -> asyncio.Future[None]:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tenants.setdefault(tenant, deque()).append(place)
        return place

    def _give_up(self, tenant: str, place: asyncio.Future[None]) -> None:
        if place.done() and not place.cancelled():
            self.leave()  # the place was handed over in the very moment of giving up
            return
        place.cancel()
        queue = self._tenants.get(tenant)
        if queue is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._tenants[tenant]

    def _full(self) -> LollmsError:
        seconds = max(1, math.ceil(self._mean_hold * (self.waiting + 1) / self._limit))
        return QueueFull(
            f"The queue is full: {self._running} requests run and {self.waiting} wait.",
            hint="Try again later, or raise resource_manager.max_waiting.",
            retry_after=min(seconds, 120),
            position=self.waiting + 1,
        )

    def _timed_out(self) -> LollmsError:
        return QueueTimeout(
            f"Waited {self._timeout:g} s for {self._what}.",
            hint="Try again later, or raise resource_manager.queue_timeout.",
            retry_after=max(1, math.ceil(self._mean_hold)),
        )
