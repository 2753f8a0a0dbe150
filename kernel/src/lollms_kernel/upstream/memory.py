"""Remembers for a while what a service said."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memory(Generic[K, V]):
    """Values by key, each asked for once and kept for `seconds`; errors are not kept.

    Callers that want the same key at the same time wait for one of them to ask; if that one is cancelled or gets an
    error, the next one asks. At most `size` values are kept.
    """

    def __init__(self, seconds: float, size: int = 256, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._size = size
        self._clock = clock
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._asking: dict[K, tuple[asyncio.Lock, int]] = {}

    def known(self, key: K) -> V | None:
        """The value if it is fresh, without asking."""
        entry = self._values.get(key)
        return None if entry is None or self._clock() >= entry[0] else entry[1]

    def fresh(self, key: K) -> bool:
        """Whether `recall` would answer without asking."""
        entry = self._values.get(key)
        return entry is not None and self._clock() < entry[0]

    async def recall(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """The value of `key`, from memory or from `ask`."""
        if self.fresh(key):
            return self._values[key][1]
        lock, waiting = self._asking.get(key, (asyncio.Lock(), 0))
        self._asking[key] = (lock, waiting + 1)
        try:
            async with lock:
                if self.fresh(key):
                    return self._values[key][1]
                value = await ask()
                self._keep(key, value)
                return value
        finally:
            lock, waiting = self._asking.pop(key)
            if waiting > 1:
                self._asking[key] = (lock, waiting - 1)

    def forget(self, key: K | None = None) -> None:
        """Drop one value, or all."""
        if key is None:
            self._values.clear()
        else:
            self._values.pop(key, None)

    def _keep(self, key: K, value: V) -> None:
        self._values[key] = (self._clock() + self.seconds, value)
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)
