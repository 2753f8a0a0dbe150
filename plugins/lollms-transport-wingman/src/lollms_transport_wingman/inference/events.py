"""Server-sent events: `data:` lines, a comment as ping in silence, and errors once the answer has begun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .call import Call, encode
from .errors import error_object, known

PING = b":\n\n"
DONE = b"data: [DONE]\n\n"


class Events:
    """The events of one answer. The status line goes out with the first of them, so that what is wrong before it is a
    plain HTTP error."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._sending = False

    async def send(self, value: object, event: str | None = None) -> None:
        """One event with a JSON value."""
        name = b"" if event is None else b"event: " + event.encode() + b"\n"
        await self.send_raw(name + b"data: " + encode(value) + b"\n\n")

    async def send_raw(self, data: bytes) -> None:
        """Bytes that are events already."""
        self._sending = True
        try:
            if not self._call.started:
                await self._call.start_events()
            await self._call.send_part(data)
        finally:
            self._sending = False
            self._last = self._loop.time()

    async def ping(self, interval: float) -> None:
        """Say that the connection lives, whenever an answer that has begun was silent so long. Never returns."""
        while True:
            silence = self._loop.time() - self._last
            if silence >= interval and self._call.started and not self._sending:
                await self.send_raw(PING)
                silence = 0.0
            await asyncio.sleep(max(interval - silence, interval / 4))


@asynccontextmanager
async def events(call: Call, ping_interval: float, *, done: bool) -> AsyncIterator[Events]:
    """Send events inside. `done`: end with `[DONE]`. An error inside is told as an event if the answer has begun."""
    told = Events(call)
    pinging = asyncio.create_task(told.ping(ping_interval))
    try:
        try:
            yield told
            if done:
                await told.send_raw(DONE)
        except Exception as error:  # whatever went wrong, an answer that has begun must tell its end
            if not call.started:
                raise
            await told.send({"error": error_object(known(error))})
        if not call.started:
            await call.start_events()
        await call.end()
    finally:
        pinging.cancel()
        await asyncio.wait([pinging])
