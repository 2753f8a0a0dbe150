"""Hands a generation's text from the engine's thread to the event loop: one wake-up for all that is ready."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Generic, TypeVar

from .native import StopFlag

T = TypeVar("T")


class Stream(Generic[T]):
    """The text of one job, then its result of type T. Made on the event loop; fed by the engine's thread."""

    def __init__(self) -> None:
        self.flag = StopFlag()
        """Set: the engine gives the job up within a step."""
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._texts: deque[str] = deque()
        self._signalled = False
        self._ended = False
        self._outcome: T | BaseException | None = None

    # --- engine thread ---

    def put(self, text: str) -> None:
        """Add text."""
        self._texts.append(text)
        if not self._signalled:  # else the loop has yet to look, and will find this too
            self._signal()

    def end(self, outcome: T | BaseException) -> None:
        """Say how it ended; the engine does not work for this job any more."""
        self._outcome = outcome
        self._ended = True
        self._signal()

    def _signal(self) -> None:
        self._signalled = True
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._ready.set)

    # --- event loop ---

    async def texts(self) -> AsyncIterator[str]:
        """Pieces of text as they come; what became ready together comes together."""
        while True:
            ended = self._ended  # looked at first: everything that was put before it is in the queue
            if self._texts:
                yield "".join(self._take())
            if ended:
                return
            await self._news()

    async def ended(self) -> None:
        """Wait until there is a result."""
        while not self._ended:
            await self._news()

    def result(self) -> T:
        """What the job ended with, or raise its error. Only after `texts` ended."""
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    async def stop(self) -> None:
        """Make the engine give the job up, and wait until it really has."""
        self.flag.set()
        await self.ended()

    async def _news(self) -> None:
        await self._ready.wait()
        self._ready.clear()
        self._signalled = False

    def _take(self) -> list[str]:
        return [self._texts.popleft() for _ in range(len(self._texts))]
