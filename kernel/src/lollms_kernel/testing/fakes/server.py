"""What all fakes share: a real HTTP server in a thread that records requests and can be told to misbehave."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

import msgspec
import uvicorn

from .faults import Fault

LIMIT = 30.0
"""Seconds that starting, stopping and waiting may take."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Received:
    """One request as it came, and what became of it."""

    def __init__(self, scope: Scope, body: bytes) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: dict[str, list[str]] = parse_qs(scope["query_string"].decode())
        self.headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self.body = body
        self.client: tuple[str, int] = tuple(scope["client"])
        """The other end of the connection."""
        self.frames = 0
        """How many frames of the answer were sent."""
        self.left = threading.Event()
        """Set when the client went away before the answer was complete."""
        self.left_at: float | None = None
        """When that was, on `time.monotonic`."""
        self.ended = threading.Event()
        """Set when nothing more happens for this request."""

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request; each frame goes out as a write of its own."""

    status: int = 200
    headers: Mapping[str, str] = msgspec.field(default_factory=lambda: {"content-type": "application/json"})
    frames: Iterable[bytes] = ()

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Reply:
        """A value as one JSON body."""
        return cls(status=status, frames=(msgspec.json.encode(value),))


class FakeServer(ABC):
    """Use it as `with FakeSomething() as fake:`; `fake.url` is where it listens, `fake.received` what it got.

    A subclass answers requests with `reply`. It runs in a thread of its own, so tests may block or run an event loop.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.faults: list[Fault] = []
        self._arrival = threading.Condition()
        self._mistakes: list[Exception] = []
        self.frame_delay = 0.0
        """Seconds between the frames of an answer."""
        # Named as TCP, or asyncio leaves Nagle's algorithm on and short answers take 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name=type(self).__name__, daemon=True
        )

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def reply(self, request: Received) -> Reply:
        """The answer to a request where no fault prevents it. Called in the fake's thread."""

    def requests_to(self, path: str) -> list[Received]:
        """The requests so far whose path contains `path`."""
        return [request for request in list(self.received) if path in request.path]

    async def request_to(self, path: str, number: int = 0, seconds: float = LIMIT) -> Received:
        """The request of this number (from 0) whose path contains `path`, as soon as it is there."""

        def wait() -> bool:
            with self._arrival:
                return self._arrival.wait_for(lambda: len(self.requests_to(path)) > number, seconds)

        if not await asyncio.to_thread(wait):
            raise AssertionError(f"no such request to {path} came within {seconds:g} s")
        return self.requests_to(path)[number]

    async def until(self, event: threading.Event, seconds: float = LIMIT) -> None:
        """Wait for an event of a request, such as `left`, without blocking the test's loop."""
        if not await asyncio.to_thread(event.wait, seconds):
            raise AssertionError(f"it did not happen within {seconds:g} s")

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._server.ready.wait(LIMIT):
            raise AssertionError("the fake did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._thread.join(LIMIT)
        self._socket.close()
        if self._mistakes and error is None:
            raise ExceptionGroup("the fake made mistakes", self._mistakes)

    # --- one request ---

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Received(scope, await _body(receive))
        fault = self._take_fault(request.path)
        with self._arrival:
            self.received.append(request)
            self._arrival.notify_all()
        answering = asyncio.create_task(self._answer(request, fault, send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                request.left_at = time.monotonic()
                request.left.set()
        finally:
            for task in (answering, leaving):
                task.cancel()
            try:
                await answering
            except (asyncio.CancelledError, _Dropped):
                pass
            except Exception as error:  # a mistake of the fake itself, raised in the test's thread at the end
                self._mistakes.append(error)
            with suppress(asyncio.CancelledError):
                await leaving
            request.ended.set()

    def _take_fault(self, path: str) -> Fault:
        for fault in self.faults:
            if fault.path in path:
                self.faults.remove(fault)
                return fault
        return Fault()

    async def _answer(self, request: Received, fault: Fault, send: Send) -> None:
        """Everything that is sent; returning without the last message makes uvicorn break the connection."""
        if math.isinf(fault.delay):
            await asyncio.Event().wait()
        await asyncio.sleep(fault.delay)
        if fault.status is None:
            reply = self.reply(request)
        else:
            reply = Reply(status=fault.status, headers=dict(fault.headers), frames=(fault.body,))
        headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        async for frame in self._faulty(reply, fault, request):
            step = fault.piece or len(frame) or 1
            for start in range(0, len(frame), step):
                piece = frame[start : start + step]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _faulty(self, reply: Reply, fault: Fault, request: Received) -> AsyncIterator[bytes]:
        frames = iter(reply.frames)
        if fault.insert or fault.ending != "go on":
            for _, frame in zip(range(fault.after), frames, strict=False):
                yield frame
                request.frames += 1
                await asyncio.sleep(self.frame_delay)
            if fault.insert:
                yield fault.insert
            if fault.ending == "stall":
                await asyncio.Event().wait()
            elif fault.ending == "drop":
                raise _Dropped
            elif fault.ending == "end":
                return
        for frame in frames:
            yield frame
            request.frames += 1
            await asyncio.sleep(self.frame_delay)


class _Dropped(Exception):
    """Ends an answer in the middle."""


class _Server(uvicorn.Server):
    """Ends at once when it is told to. uvicorn looks ten times a second: a thousand tests would wait for that."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    def stop(self) -> None:
        """End; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ending.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.ready.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = self.server_state
        for server in self.servers:
            server.close()
        for connection in list(state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while state.connections or state.tasks:  # noqa: ASYNC110 - uvicorn tells nobody
                    await asyncio.sleep(0.002)
        for task in state.tasks:
            task.cancel()


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
