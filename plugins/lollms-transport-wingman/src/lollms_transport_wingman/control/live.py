"""Frames to everybody who listens on a WebSocket.

Once a second, and on every change, each client gets the frames of the original, one JSON object with one key each;
changes also come as `{"event": …, "data": …}`, and figures as `{"event": "metrics", …}`. A frame is encoded once for
all. A client that does not read is let go when its mailbox is full, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from .answers import Receive, Send
from .objects import Json

logger = logging.getLogger(__name__)

EVERY = 1.0
MAILBOX = 256
"""Frames that may wait for one client."""
SEND_LIMIT = 20.0
"""Seconds that a client may take for one frame."""
MAX_INBOUND = 256 * 1024
MAX_CLIENTS = 1000
TOO_SLOW = 1013
GOING_AWAY = 1001

Frames = Callable[[], Awaitable[list[Json]]]


class Client:
    """One connection's mailbox."""

    def __init__(self) -> None:
        self.mailbox: asyncio.Queue[str] = asyncio.Queue(MAILBOX)
        self.lost = asyncio.Event()
        """Set when it was too slow."""

    def post(self, frame: str) -> None:
        """Put a frame into the mailbox, or give the client up."""
        try:
            self.mailbox.put_nowait(frame)
        except asyncio.QueueFull:
            self.lost.set()


class Live:
    """The listeners. `frames` gives the full set; `shutdown` is what a client may ask for."""

    def __init__(self, frames: Frames, every: float = EVERY) -> None:
        self._frames = frames
        self._every = every
        self._clients: set[Client] = set()
        self._wanted = asyncio.Event()
        self._ticking: asyncio.Task[None] | None = None
        self._leaving = False

    async def open(self) -> None:
        """Begin to tell."""
        self._ticking = asyncio.create_task(self._tick(), name="wingman live")

    async def close(self) -> None:
        """Let everybody go."""
        if self._ticking is not None:
            self._ticking.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticking
        for client in self._clients:
            client.lost.set()

    async def leave(self, seconds: float) -> None:
        """Let everybody go who has what was told, or after some seconds."""
        self._leaving = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(client.mailbox.join() for client in self._clients))
        for client in self._clients:
            client.lost.set()

    @property
    def count(self) -> int:
        """How many listen."""
        return len(self._clients)

    def tell(self, event: str, data: Json) -> None:
        """Tell a change at once; the full set follows in a moment."""
        if self._clients:
            self._post(_encoded({"event": event, "data": data}))
            self._wanted.set()

    async def serve(self, receive: Receive, send: Send, shutdown: Callable[[], bool]) -> None:
        """One connection, from its handshake to its end. `shutdown` says whether the client may stop the server."""
        if (await receive())["type"] != "websocket.connect":
            return
        if self._leaving or len(self._clients) >= MAX_CLIENTS:
            await send({"type": "websocket.close", "code": TOO_SLOW})
            return
        await send({"type": "websocket.accept"})
        client = Client()
        self._clients.add(client)
        self._wanted.set()
        tasks = [
            asyncio.create_task(self._deliver(client, send)),
            asyncio.create_task(_listen(receive, shutdown)),
            asyncio.create_task(client.lost.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._clients.discard(client)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        stopping = tasks[1] in done and not tasks[1].cancelled() and tasks[1].result()
        if stopping:
            await _last_words(send)
        elif self._leaving:
            await _goodbye(send, GOING_AWAY)
        elif tasks[1] not in done:
            logger.info("A WebSocket client was too slow and was let go.")
            await _goodbye(send, TOO_SLOW)

    async def _deliver(self, client: Client, send: Send) -> None:
        while True:
            frame = await client.mailbox.get()
            try:
                async with asyncio.timeout(SEND_LIMIT):
                    await send({"type": "websocket.send", "text": frame})
            except (TimeoutError, OSError, RuntimeError):
                return  # it reads no more, or is gone
            client.mailbox.task_done()

    async def _tick(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._wanted.wait()
            self._wanted.clear()
            if not self._clients:
                await self._wanted.wait()  # nobody listens: there is nothing to do until somebody does
            try:
                frames = await self._frames()
            except Exception:  # the next second is another try; a client must not lose its frames for ever
                logger.exception("the frames of this second could not be made")
                continue
            for frame in frames:
                self._post(_encoded(frame))
            await asyncio.sleep(0.05)  # many changes at once need not be as many full sets

    def _post(self, frame: str) -> None:
        for client in self._clients:
            client.post(frame)


async def _listen(receive: Receive, shutdown: Callable[[], bool]) -> bool:
    """Wait for the client to go (False) or to stop the server (True)."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return False
        text = message.get("text")
        if text is None and message.get("bytes") is not None:
            text = message["bytes"].decode("utf-8", "replace")
        if text is not None and len(text) > MAX_INBOUND:
            return False
        if text == "shutdown":
            if shutdown():
                return True
            logger.warning("A WebSocket client asked to stop the server, which it may not.")
        else:
            logger.debug("a WebSocket client said something that means nothing")


async def _last_words(send: Send) -> None:
    with suppress(TimeoutError, OSError, RuntimeError):
        async with asyncio.timeout(SEND_LIMIT):
            await send({"type": "websocket.send", "text": "Shutting down"})
    await _goodbye(send, 1000)


async def _goodbye(send: Send, code: int) -> None:
    with suppress(TimeoutError, OSError, RuntimeError):
        async with asyncio.timeout(1.0):
            await send({"type": "websocket.close", "code": code})


def _encoded(frame: Json) -> str:
    return msgspec.json.encode(frame, order="deterministic").decode()
