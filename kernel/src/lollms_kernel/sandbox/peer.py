"""Calls and streams in both directions over one connection, of plain values.

The frames are those of `workers`. A `Call` belongs to the side that sends it, so both number their calls by themselves.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from ..errors import GenerationFailed, InvalidRequest, LollmsError, NotSupported
from ..workers.allowance import Allowance
from ..workers.channel import Channel
from ..workers.faults import Fault
from ..workers.frames import (
    MAX_FRAME,
    Call,
    Cancel,
    Chunks,
    Credit,
    Frame,
    FrameError,
    Raised,
    Result,
    pack,
)

WINDOW = 32
"""Items that a stream may be ahead of whoever reads it."""
MAX_CALLS = 256
"""Calls of the other side that are worked on at once; it has to wait with more."""

Handler = Callable[..., Any]
"""An async function, or an async generator function for a stream."""

LOST = "The other process has ended."
"""What `Peer.lost` says where the connection just ended; anything else says what was wrong with what came."""


class Peer:
    """One end. `lost` is done when the connection has ended. `max_total` bounds all that is ever received."""

    def __init__(self, *, max_frame: int = MAX_FRAME, max_total: int | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.channel = Channel(self._receive, self._lost, max_frame=max_frame, max_total=max_total)
        self._handlers: Mapping[str, Handler] = {}
        self._context = contextvars.copy_context()
        self._ids = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._serving: dict[int, asyncio.Task[Any]] = {}
        self._allowances: dict[int, Allowance] = {}

    def serve(self, handlers: Mapping[str, Handler]) -> None:
        """Let the other side call these from now on, in the context (tenant and so on) of whoever says so."""
        self._handlers = handlers
        self._context = contextvars.copy_context()

    async def call(self, method: str, *arguments: object) -> Any:
        """What the other side's method gives. Raises its error; being cancelled stops it."""
        asked = self._begin(method, arguments)
        try:
            await asyncio.wait(
                [asked.outcome]
            )  # waiting for the future itself would cancel it with this task
            return asked.outcome.result()
        finally:
            self._end(asked)

    async def stream(self, method: str, *arguments: object) -> AsyncGenerator[Any, None]:
        """The items of the other side's async generator; being closed stops it."""
        asked = self._begin(method, arguments)
        try:
            self._send(Credit(asked.id, WINDOW))
            handed_out = 0
            while True:
                items = await asked.next()
                if not items:
                    break
                for item in items:
                    yield item
                    handed_out += 1
                if handed_out >= WINDOW // 2:
                    self._send(Credit(asked.id, handed_out))
                    handed_out = 0
            await asked.outcome
        finally:
            self._end(asked)

    async def close(self) -> None:
        """End the connection, and everything that the other side has asked for; waits until nothing of it runs."""
        self.channel.abort()
        tasks = list(self._serving.values())
        for task in tasks:
            task.cancel()
        while tasks:  # however often this is cancelled itself: what they hold goes back before anything else
            cancelled = None
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as error:
                cancelled = error
            tasks = [task for task in tasks if not task.done()]
            if cancelled is not None and not tasks:
                raise cancelled

    # --- what this side asks ---------------------------------------------------------------------------------

    def _begin(self, method: str, arguments: tuple[object, ...]) -> _Asked:
        if self.lost.done():
            raise GenerationFailed(self.lost.result())
        try:
            frame = Call(next(self._ids), method, pack(arguments))
            self.channel.send(frame)
        except FrameError as error:
            raise InvalidRequest(f"'{method}' cannot be given this: {error}.") from error
        asked = self._asked[frame.id] = _Asked(frame.id, self._loop)
        return asked

    def _end(self, asked: _Asked) -> None:
        if self._asked.pop(asked.id, None) is not None and not asked.outcome.done():
            self._send(Cancel(asked.id))
            asked.outcome.cancel()
        elif asked.outcome.done() and not asked.outcome.cancelled():
            asked.outcome.exception()  # it was looked at

    def _send(self, frame: Frame) -> None:
        if not self.lost.done():
            self.channel.send(frame)

    # --- what the other side asks ----------------------------------------------------------------------------

    def _receive(self, frame: Frame) -> None:
        match frame:
            case Call(id=id):
                self._take(frame)
            case Cancel(id=id) if id in self._serving:
                self._serving[id].cancel()
            case Credit(id=id, count=count) if id in self._allowances:
                self._allowances[id].grant(count)
            case Chunks(id=id, items=items) if id in self._asked:
                self._asked[id].add(items)
            case Result(id=id, value=value) if id in self._asked:
                self._asked[id].settle(value)
            case Raised(id=id, fault=fault) if id in self._asked:
                self._asked[id].fail(fault.error())
            case _:
                pass  # for a call that has ended meanwhile

    def _take(self, call: Call) -> None:
        if call.id in self._serving or len(self._serving) >= MAX_CALLS:
            self._send(Raised(call.id, Fault.of(InvalidRequest(f"More than {MAX_CALLS} calls at once."))))
            return
        self._allowances[call.id] = Allowance()
        task = self._loop.create_task(self._run(call), name=call.method, context=self._context.copy())
        self._serving[call.id] = task
        task.add_done_callback(lambda done: self._answer(call, done))

    async def _run(self, call: Call) -> Any:
        handler = self._handlers.get(call.method)
        if handler is None:
            raise NotSupported(f"There is no '{call.method}' here.")
        try:
            arguments = msgspec.msgpack.decode(call.arguments, type=list[Any])
            inspect.signature(handler).bind(*arguments)
        except (msgspec.MsgspecError, TypeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"'{call.method}' was called wrongly: {error}.") from error
        result = handler(*arguments)
        if not isinstance(result, AsyncGenerator):
            return await result
        allowance = self._allowances[call.id]
        async with aclosing(result) as items:
            async for item in items:
                self.channel.send(Chunks(call.id, pack([item])))
                if not allowance.spend():
                    await allowance.granted()
        return None

    def _answer(self, call: Call, task: asyncio.Task[Any]) -> None:
        del self._serving[call.id], self._allowances[call.id]
        if task.cancelled():
            self._send(Raised(call.id, Fault.of(GenerationFailed(f"'{call.method}' was stopped."))))
        elif (error := task.exception()) is not None:
            self._send(Raised(call.id, Fault.of(error)))
        else:
            try:
                self._send(Result(call.id, pack(task.result())))
            except FrameError as error:
                fault = Fault.of(GenerationFailed(f"'{call.method}' gave what cannot be sent: {error}."))
                self._send(Raised(call.id, fault))

    def _lost(self, reason: Exception | None) -> None:
        text = LOST if reason is None else f"The other process sent what cannot be read: {reason}"
        self.lost.set_result(text)
        for asked in list(self._asked.values()):
            asked.fail(GenerationFailed(text))
        for task in self._serving.values():
            task.cancel()


class _Asked:
    """A call that is not answered yet, or a stream."""

    def __init__(self, id: int, loop: asyncio.AbstractEventLoop) -> None:
        self.id = id
        self.outcome: asyncio.Future[Any] = loop.create_future()
        self._unread: list[Any] = []
        self._news = asyncio.Event()

    def add(self, items: msgspec.Raw) -> None:
        try:
            self._unread += msgspec.msgpack.decode(items, type=list[Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.fail(GenerationFailed(f"An item cannot be read: {error}."))
        self._news.set()

    def settle(self, value: msgspec.Raw) -> None:
        try:
            decoded = msgspec.msgpack.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.fail(GenerationFailed(f"The result cannot be read: {error}."))
        else:
            if not self.outcome.done():
                self.outcome.set_result(decoded)
        self._news.set()

    def fail(self, error: LollmsError) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
        self._news.set()

    async def next(self) -> list[Any]:
        """The items that are there, at least one; none: it has ended."""
        while not self._unread and not self.outcome.done():
            self._news.clear()
            await self._news.wait()
        items, self._unread = self._unread, []
        return items
