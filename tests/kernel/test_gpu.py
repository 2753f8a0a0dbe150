"""The built-in GPU strategies keep the contract."""

from __future__ import annotations

from lollms_kernel.gpu import NoLock, Semaphore, SimpleLock
from lollms_kernel.testing import GpuStrategyContract


class TestNoLock(GpuStrategyContract):
    strategy_type = NoLock
    places = None


class TestSemaphore(GpuStrategyContract):
    strategy_type = Semaphore
    places = 2


class TestSimpleLock(GpuStrategyContract):
    strategy_type = SimpleLock
    places = 1
