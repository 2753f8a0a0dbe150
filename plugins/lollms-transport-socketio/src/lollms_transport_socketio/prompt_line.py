"""The prompts of one socket, answered one after another."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from lollms_kernel.errors import QueueFull


class Answering(Protocol):
    """What stands in the line."""

    def end(self) -> bool:
        """Keep it from telling more; False if it has ended already."""

    async def run(self) -> None:
        """Answer."""


class PromptLine:
    """Runs what is submitted in order; one at a time, since a client could not tell the chunks of two apart."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._waiting: deque[Answering] = deque()
        self._current: Answering | None = None
        self._answering: asyncio.Task[None] | None = None
        self._working: asyncio.Task[None] | None = None

    def submit(self, answering: Answering) -> None:
        """Run it when those before it have ended. Raises QueueFull with its place in the line."""
        if self._current is not None and len(self._waiting) >= self._max_waiting:
            raise QueueFull(
                f"{len(self._waiting)} prompts of this socket wait already.",
                hint="Wait for an answer, or cancel.",
                position=len(self._waiting) + 1,
            )
        self._waiting.append(answering)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())

    def cancel(self) -> int:
        """Stop everything; how many had not ended yet."""
        stopped = [*([self._current] if self._current else []), *self._waiting]
        self._waiting.clear()
        if self._answering is not None:
            self._answering.cancel()
        return sum(answering.end() for answering in stopped)

    async def idle(self) -> None:
        """Wait until nothing runs any more."""
        if self._working is not None:
            await asyncio.wait({self._working})

    async def close(self) -> None:
        """Stop everything and wait until nothing runs any more."""
        self.cancel()
        await self.idle()

    async def _work(self) -> None:
        while self._waiting:
            self._current = self._waiting.popleft()
            self._answering = asyncio.create_task(self._current.run())
            await asyncio.wait({self._answering})
            if not self._answering.cancelled() and self._answering.exception() is not None:
                self._waiting.clear()  # the client is gone; all else is told to it
            self._current = self._answering = None
