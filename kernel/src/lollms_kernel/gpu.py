"""Strategies by which pieces of work share the GPU.

The kernel takes the lease and holds it for the whole stream. A binding that batches requests itself names a
`share` key: its requests in flight then hold one lease together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from .admission import FairQueue
from .contracts import GpuStrategy
from .errors import QueueTimeout
from .types import GpuNeed


class NoLock(GpuStrategy):
    """Everybody may use the GPU at once."""

    name = "none"

    def __init__(self, limit: int, queue_timeout: float) -> None:
        super().__init__(limit, queue_timeout)
        self._active = 0

    @asynccontextmanager
    async def lease(self, binding: str, need: GpuNeed) -> AsyncIterator[None]:
        """Enter at once."""
        self._active += need.required
        try:
            yield
        finally:
            self._active -= need.required

    def status(self) -> Mapping[str, Any]:
        """How many hold it."""
        return {"strategy": self.name, "active": self._active, "waiting": 0}


class _SharedLease:
    """One lease that several requests of a batching binding hold together."""

    def __init__(self) -> None:
        self.users = 0
        self.held = False
        self.lock = asyncio.Lock()


class Semaphore(GpuStrategy):
    """Up to `limit` leases at once."""

    name = "semaphore"

    def __init__(self, limit: int, queue_timeout: float) -> None:
        super().__init__(limit, queue_timeout)
        self._queue = FairQueue(running=limit, waiting=None, timeout=queue_timeout, what="the GPU")
        self._shared: dict[str, _SharedLease] = {}

    @asynccontextmanager
    async def lease(self, binding: str, need: GpuNeed) -> AsyncIterator[None]:
        """Wait for a place, at most `queue_timeout` seconds."""
        if not need.required:
            yield
        elif need.share is None:
            async with self._queue.turn(binding):
                yield
        else:
            async with self._together(need.share):
                yield

    @asynccontextmanager
    async def _together(self, share: str) -> AsyncIterator[None]:
        lease = self._shared.setdefault(share, _SharedLease())
        lease.users += 1
        try:
            await self._hold(lease, share)
            yield
        finally:
            lease.users -= 1
            if not lease.users:
                del self._shared[share]
                if lease.held:
                    self._queue.leave()

    async def _hold(self, lease: _SharedLease, share: str) -> None:
        try:
            async with asyncio.timeout(self.queue_timeout):
                async with lease.lock:
                    if not lease.held:
                        await self._queue.enter(share)
                        lease.held = True
        except TimeoutError:
            raise QueueTimeout(
                f"Waited {self.queue_timeout:g} s for the GPU.",
                hint="Try again later, or raise resource_manager.queue_timeout.",
            ) from None

    def status(self) -> Mapping[str, Any]:
        """How many leases are held and how many wait for one."""
        return {
            "strategy": self.name,
            "limit": self.limit,
            "active": self._queue.running,
            "waiting": self._queue.waiting,
        }


class SimpleLock(Semaphore):
    """One lease at a time, whatever the limit says."""

    name = "simple_lock"

    def __init__(self, limit: int, queue_timeout: float) -> None:
        super().__init__(1, queue_timeout)
