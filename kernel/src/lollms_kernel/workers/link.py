"""The calls and streams under way to one worker, as the server sees them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import GenerationFailed, InvalidRequest, PayloadTooLarge
from ..types import Chunk
from .channel import Channel
from .faults import Fault
from .frames import (
    MAX_FRAME,
    PROTOCOL,
    Call,
    Cancel,
    Chunks,
    Credit,
    Frame,
    FrameError,
    FrameTooLarge,
    Ping,
    Pong,
    Raised,
    Ready,
    Result,
    pack,
)
from .methods import METHODS, chunks_of

WINDOW = 64
"""Chunks that a stream may be ahead of whoever reads it; the worker's generator pauses there."""
CANCEL_GRACE = 5.0
"""Seconds that a worker has to stop a cancelled call; one that tells its engine's pulse has as long as that moves."""


class Pending:
    """A call that is not answered yet."""

    def __init__(self, id: int, method: str) -> None:
        self.id = id
        self.method = method
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[msgspec.Raw | Fault] = self._loop.create_future()
        self.waiting_since: float | None = self._loop.time()
        """Since when nothing has come although somebody waits."""
        self.overdue: asyncio.TimerHandle | None = None

    def settle(self, outcome: msgspec.Raw | Fault) -> None:
        """Note how it ended; the first word counts."""
        if self.overdue is not None:
            self.overdue.cancel()
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    async def value(self) -> Any:
        """Wait for what the method gave. Raises the worker's error; being cancelled does not stop the call."""
        await asyncio.wait([self.outcome])
        outcome = self.outcome.result()
        if isinstance(outcome, Fault):
            raise outcome.error()
        try:
            return METHODS[self.method].value(outcome)
        except FrameError as error:
            raise _malformed(self.method, error).error() from error


class ChunkStream(Pending):
    """The chunks of one call, at most `WINDOW` of them unread.

    Leaving it as a context manager waits until the worker has stopped working for it.
    """

    def __init__(self, id: int, method: str, link: Link) -> None:
        super().__init__(id, method)
        self.waiting_since = None
        self._link = link
        self._unread: list[Chunk] = []
        self._handed_out = 0
        self._spoiled: Fault | None = None
        self._news: asyncio.Future[None] | None = None

    async def __aenter__(self) -> ChunkStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._link.stop(self)

    def add(self, items: msgspec.Raw) -> None:
        """Put what has arrived behind what is unread."""
        try:
            self._unread += chunks_of(items)
        except FrameError as error:
            self._spoiled = self._spoiled or _malformed(self.method, error)
        self._wake()

    def settle(self, outcome: msgspec.Raw | Fault) -> None:
        """Note how it ended; what is unread still comes first."""
        super().settle(outcome)
        self._wake()

    async def next(self) -> list[Chunk]:
        """The chunks that are there, at least one; none: the stream has ended. Raises the worker's error."""
        if self._handed_out >= WINDOW // 2:
            self._link.channel.send(Credit(self.id, self._handed_out))
            self._handed_out = 0
        if not (self._unread or self._spoiled or self.outcome.done()):
            await self._arrival()
        if self._unread:
            chunks, self._unread = self._unread, []
            self._handed_out += len(chunks)
            return chunks
        outcome = self._spoiled or self.outcome.result()
        if isinstance(outcome, Fault):
            raise outcome.error()
        return []

    async def _arrival(self) -> None:
        self._news, self.waiting_since = self._loop.create_future(), self._loop.time()
        try:
            await self._news
        finally:
            self._news = self.waiting_since = None

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class Link:
    """The server's end of the line to a worker: makes calls, reads streams, fails them all when it is lost.

    `condemn(reason)` is called when the worker cannot be trusted any more and must be killed.
    """

    def __init__(self, condemn: Callable[[str], None], *, max_frame: int = MAX_FRAME) -> None:
        self._condemn = condemn
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._pending: dict[int, Pending] = {}
        self._fault: Fault | None = None
        self.channel = Channel(self._receive, self._lost, max_frame=max_frame)
        self.closed: asyncio.Future[Exception | None] = self._loop.create_future()
        """Done when the connection has ended, with the reason; None: the worker closed it."""
        self.received = 0
        """Frames so far: each is a sign of life."""
        self._pulse: int | None = None
        self._pulse_moved = 0.0

    def begin(self, method: str, *arguments: object) -> Pending:
        """Make a call that goes on whether or not somebody waits for its value."""
        pending = Pending(next(self._ids), method)
        self._send(pending, arguments)
        return pending

    async def call(self, method: str, *arguments: object) -> Any:
        """What the binding's method gives. Raises its LollmsError, or WorkerCrashed and the like."""
        pending = self.begin(method, *arguments)
        try:
            return await pending.value()
        finally:
            await self.stop(pending)

    def stream(self, method: str, *arguments: object) -> ChunkStream:
        """The chunks of an async generator; to be entered at once."""
        stream = ChunkStream(next(self._ids), method, self)
        self._send(stream, arguments)
        self.channel.send(Credit(stream.id, WINDOW))
        return stream

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.channel.send(Ping())

    def longest_wait(self) -> tuple[float, str]:
        """For how many seconds somebody has waited in vain for something to come, and for which method.

        A movement of the engine's pulse is something for everybody: whom it does not serve waits behind others.
        """
        now = self._loop.time()
        waits = (
            (now - max(p.waiting_since, self._pulse_moved), p.method)
            for p in self._pending.values()
            if p.waiting_since is not None
        )
        return max(waits, default=(0.0, ""))

    def fail(self, fault: Fault) -> None:
        """End everything under way, and every later call, with this fault."""
        self._fault = fault
        for pending in self._pending.values():
            pending.settle(fault)
        self._pending.clear()

    async def stop(self, pending: Pending) -> None:
        """Wait until the worker does nothing for this call any more, however often the caller is cancelled.

        The caller gives its GPU lease back next; leaving earlier would let two generations share the GPU.
        """
        if pending.outcome.done():
            return
        self.channel.send(Cancel(pending.id))
        pending.waiting_since = self._loop.time()
        pending.overdue = self._loop.call_later(CANCEL_GRACE, self._late, pending)
        cancelled: asyncio.CancelledError | None = None
        while not pending.outcome.done():
            try:
                await asyncio.wait([pending.outcome])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def _late(self, pending: Pending) -> None:
        """A cancelled call goes on. With a pulse it may be a long step, which the watchdog tells from a hang."""
        if self._pulse is None:
            self._condemn(f"did not stop '{pending.method}' within {CANCEL_GRACE:g} s of being told to")

    def _send(self, pending: Pending, arguments: tuple[object, ...]) -> None:
        if self._fault is not None:
            raise self._fault.error()
        try:
            self.channel.send(Call(pending.id, pending.method, pack(arguments)))
        except FrameTooLarge as error:
            message = f"The request has {error.size} bytes; a worker takes {error.limit}."
            raise PayloadTooLarge(message, hint="Send smaller or fewer media.") from error
        except FrameError as error:
            raise InvalidRequest(
                f"The request holds a value that no worker can be given ({error})."
            ) from error
        self._pending[pending.id] = pending

    def _receive(self, frame: Frame) -> None:
        self.received += 1
        match frame:
            case Chunks(id=id, items=items):
                stream = self._pending.get(id)
                if isinstance(stream, ChunkStream):
                    stream.add(items)
            case Result(id=id, value=outcome) | Raised(id=id, fault=outcome):
                pending = self._pending.pop(id, None)
                if pending is not None:
                    pending.settle(outcome)
            case Ready(protocol=protocol) if protocol != PROTOCOL:
                self._condemn(f"speaks version {protocol} of the worker protocol and not {PROTOCOL}")
            case Pong(pulse=pulse) if pulse != self._pulse:
                self._pulse, self._pulse_moved = pulse, self._loop.time()
            case _:
                pass  # a Pong has done its work by arriving

    def _lost(self, reason: Exception | None) -> None:
        self.closed.set_result(reason)


def _malformed(method: str, error: FrameError) -> Fault:
    message = f"'{method}' of the binding gave something that does not have the documented type: {error}"
    return Fault.of(GenerationFailed(message, hint="This is a defect of the binding's plugin."))
