"""The python-socketio client as tests use it: ask, and wait for the answer by its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import socketio

PATIENCE = 30.0
LAST = ("text_generated", "generation_error", "generation_canceled", "buzzy")

Heard = tuple[str, Any]


class Client:
    """One connected client; everything that it hears is kept in order."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """The session ends with whoever opened it: the library leaves its own open where connecting fails."""
        self.wire = socketio.AsyncClient(reconnection=False, http_session=session)
        self.heard: list[Heard] = []
        self.refused: list[Any] = []
        self.gone = asyncio.Event()
        self._more = asyncio.Condition()
        self.wire.on("*", self._hear)
        self.wire.on("connect_error", self.refused.append)
        self.wire.on("disconnect", self._leave)

    async def _hear(self, event: str, *arguments: Any) -> None:
        async with self._more:
            self.heard.append((event, *arguments) if len(arguments) != 1 else (event, arguments[0]))
            self._more.notify_all()

    async def _leave(self, *_reason: Any) -> None:
        self.gone.set()
        async with self._more:
            self._more.notify_all()

    async def send(self, event: str, *payload: Any) -> None:
        """Emit, with no payload where none is given."""
        await self.wire.emit(event, payload or None)

    async def wait_for(self, *names: str, count: int = 1, after: int = 0) -> Any:
        """The payload of the `count`-th event of one of these names, beginning at place `after`."""

        def found() -> list[Any]:
            return [payload for name, payload in self.heard[after:] if name in names]

        async with asyncio.timeout(PATIENCE), self._more:
            await self._more.wait_for(lambda: len(found()) >= count or self.gone.is_set())
        assert len(found()) >= count, f"disconnected before {names}: {self.heard[after:]}"
        return found()[count - 1]

    async def ask(self, event: str, *payload: Any, reply: str) -> Any:
        """Emit, and wait for the answer of this name."""
        place = len(self.heard)
        await self.send(event, *payload)
        return await self.wait_for(reply, after=place)

    async def generate(self, prompt: str, **fields: Any) -> list[Heard]:
        """Everything that is heard of one prompt, its one end included."""
        place = len(self.heard)
        await self.send("generate_text", {"prompt": prompt, **fields})
        await self.wait_for(*LAST, after=place)
        return self.heard[place:]

    async def answer(self, prompt: str, **fields: Any) -> str:
        """The text of an answer that ends well."""
        *_, (name, payload) = await self.generate(prompt, **fields)
        assert name == "text_generated", payload
        text: str = payload["text"]
        return text


@asynccontextmanager
async def connected(
    url: str,
    *,
    transports: Sequence[str] = ("websocket",),
    auth: Any = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[Client]:
    """A client that has joined, until the end of the block."""
    async with unconnected() as client:
        await client.wire.connect(
            url, transports=list(transports), auth=auth, headers=headers or {}, wait_timeout=int(PATIENCE)
        )
        yield client


@asynccontextmanager
async def unconnected() -> AsyncIterator[Client]:
    """A client that may yet join, and has left at the end of the block."""
    async with aiohttp.ClientSession() as session:
        client = Client(session)
        try:
            yield client
        finally:
            await client.wire.disconnect()
