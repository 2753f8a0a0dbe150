"""How far a stream may be ahead of whoever reads it."""

from __future__ import annotations

import asyncio


class Allowance:
    """How many more chunks a stream may send."""

    def __init__(self) -> None:
        self._left = 0
        self._granted = asyncio.Event()

    def grant(self, count: int) -> None:
        """Allow `count` more."""
        self._left += count
        self._granted.set()

    def spend(self) -> bool:
        """Count one chunk; False: no other may follow until `granted`."""
        self._left -= 1
        return self._left > 0

    async def granted(self) -> None:
        """Wait until there is something left."""
        while self._left <= 0:
            self._granted.clear()
            await self._granted.wait()
