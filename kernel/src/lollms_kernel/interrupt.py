"""Lets somebody else end what a task is waiting for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from .errors import LollmsError

T = TypeVar("T")


class Interrupt:
    """Guards awaits of one task; `trip` makes the present or the next guarded await raise the given error.

    It works as `asyncio.timeout` does: the task is cancelled inside the await, so that everything below cleans
    up as usual, and the cancellation is turned into the error at the guard. It costs nothing per await.
    """

    def __init__(self) -> None:
        self.error: LollmsError | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0

    def trip(self, error: LollmsError) -> None:
        """Raise `error` in the guarded task; the first error stays."""
        if self.error is None:
            self.error = error
            if self._task is not None:
                self._task.cancel()

    async def guard(self, awaitable: Awaitable[T]) -> T:
        """The awaitable's result, or the error of `trip`."""
        task = asyncio.current_task()
        assert task is not None, "guard() runs in a task"
        if self.error is not None:
            close = getattr(awaitable, "close", None)
            if close is not None:
                close()
            raise self.error
        self._task, self._cancelling = task, task.cancelling()
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self.error is not None and task.uncancel() <= self._cancelling:
                raise self.error from None
            raise
        finally:
            self._task = None
