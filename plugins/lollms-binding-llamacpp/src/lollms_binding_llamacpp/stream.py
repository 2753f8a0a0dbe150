"""Hands what the engine's thread makes to the event loop: one wake-up for all that is ready, of all streams."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from .job import Piece, Reading
from .native import StopFlag

T = TypeVar("T")
Item = Piece | Reading


class Ended(Generic[T]):
    """The last word about a stream: its result, or the error that ended it."""

    __slots__ = ("outcome",)

    def __init__(self, outcome: T | BaseException) -> None:
        self.outcome = outcome


class Stream(Generic[T]):
    """What one job makes, then its result of type T. Made on the event loop; fed through an `Outbox`."""

    def __init__(self, hurry: Callable[[Stream[T]], None] | None = None) -> None:
        self._hurry = hurry
        self.flag = StopFlag()
        """Set: the engine gives the job up within a step."""
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._items: deque[Item] = deque()
        self._ended: Ended[T] | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it belongs to."""
        return self._loop

    def deliver(self, item: Item | Ended[Any]) -> None:
        """Take an item in; on the event loop only."""
        if isinstance(item, Ended):
            self._ended = item
        else:
            self._items.append(item)
        self._news.set()

    async def items(self) -> AsyncIterator[Item]:
        """Items as they come; text that became ready together comes together."""
        while True:
            while self._items:
                yield self._take()
            if self._ended is not None:
                return
            self._news.clear()
            await self._news.wait()

    async def ended(self) -> None:
        """Wait until there is a result."""
        while self._ended is None:
            self._news.clear()
            await self._news.wait()

    def result(self) -> T:
        """What the job ended with, or raise its error. Only after `items` ended."""
        assert self._ended is not None
        outcome = self._ended.outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def stop(self) -> None:
        """Make the engine give the job up, and wait until it really has."""
        self.flag.set()
        if self._hurry is not None:
            self._hurry(self)
        await self.ended()

    def _take(self) -> Item:
        item = self._items.popleft()
        if not isinstance(item, Piece) or not self._items:
            return item
        more = [item]
        while self._items and isinstance(self._items[0], Piece):
            more.append(self._items.popleft())  # type: ignore[arg-type]
        if len(more) == 1:
            return item
        return Piece(
            "".join(piece.text for piece in more),
            tuple(token for piece in more for token in piece.tokens),
            tuple(entry for piece in more for entry in piece.probabilities),
        )


class Outbox:
    """Collects what one step of the engine made for all streams; `send` wakes each event loop once."""

    def __init__(self) -> None:
        self._mail: dict[asyncio.AbstractEventLoop, list[tuple[Stream[Any], Item | Ended[Any]]]] = {}

    def put(self, stream: Stream[Any], item: Item | Ended[Any]) -> None:
        """Add an item for a stream."""
        self._mail.setdefault(stream.loop, []).append((stream, item))

    def send(self) -> None:
        """Hand everything over."""
        mail, self._mail = self._mail, {}
        for loop, letters in mail.items():
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(_open, letters)


def _open(letters: Sequence[tuple[Stream[Any], Item | Ended[Any]]]) -> None:
    for stream, item in letters:
        stream.deliver(item)
