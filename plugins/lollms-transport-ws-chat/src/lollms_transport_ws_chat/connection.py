"""One WebSocket: what is sent goes through a bounded queue, so that no client can make a session wait."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec
from litestar import WebSocket
from litestar.exceptions import WebSocketException

from .backend import Choice
from .events import Outgoing
from .messages import wire

MAX_QUEUED = 64
"""Messages that wait for a slow client; one more closes the connection."""

MERGE_FROM = 16
"""Waiting messages from which on further pieces of an answer are put together."""

MAX_QUEUED_CHARACTERS = 1_000_000
CLOSE_TIMEOUT = 2.0
"""Seconds that a client gets to take what was sent before its connection is closed."""

Socket = WebSocket[Any, Any, Any]


class WebSocketLink:
    """A connection as sessions see it (`actor.Link`)."""

    def __init__(self, socket: Socket, number: int, client_id: str, caller: Any, choice: Choice) -> None:
        self.number = number
        self.client_id = client_id
        self.caller = caller
        self.choice = choice
        self._socket = socket
        self._queue: deque[Outgoing] = deque()
        self._sending: Outgoing | None = None
        self._characters = 0
        self._wake = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._gone = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """The task that sends until the connection is closed by this side, or broken."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self._task

    @property
    def closing(self) -> bool:
        """Whether nothing that the client sends counts any more."""
        return self._gone or self._closing is not None

    def send(self, message: Outgoing) -> None:
        """See `actor.Link.send`."""
        if self._gone or self._closing is not None:
            if _lasts(message):
                self._queue.append(message)
            return
        if len(self._queue) >= MERGE_FROM and _same_stream(self._queue[-1], message):
            self._queue[-1] = _merged(self._queue[-1], message)
        else:
            self._queue.append(message)
        self._characters += _size(message)
        if len(self._queue) > MAX_QUEUED or self._characters > MAX_QUEUED_CHARACTERS:
            self.close(1008, "The client takes its messages too slowly.")
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        """See `actor.Link.close`."""
        if self._closing is None:
            self._closing = (code, reason)
            if self._task is not None:
                asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._task.cancel)
        self._wake.set()

    def unsent(self) -> tuple[Outgoing, ...]:
        """What never left and is worth keeping; call it when the connection is gone."""
        left = [*([] if self._sending is None else [self._sending]), *self._queue]
        return tuple(message for message in left if _lasts(message))

    async def _run(self) -> None:
        try:
            while self._closing is None:
                await self._wake.wait()
                self._wake.clear()
                await self._send_queued()
            await self._send_queued()
            code, reason = self._closing
            await self._socket.close(code, reason)
        except (WebSocketException, OSError, RuntimeError):
            pass  # the client is gone, which the reading side learns too
        finally:
            self._gone = True

    async def _send_queued(self) -> None:
        while self._queue:
            self._sending = self._queue.popleft()
            await self._socket.send_data(wire(self._sending), mode="text")
            self._characters -= _size(self._sending)
            self._sending = None


def _lasts(message: Outgoing) -> bool:
    """Whether a message is kept for the next connection if this one breaks: answers, and texts that come back."""
    return message.type == "AI_RESPONSE" or (message.type == "ERROR" and "text" in message.payload)


def _same_stream(one: Outgoing, other: Outgoing) -> bool:
    return (
        one.type == other.type == "AI_RESPONSE_DELTA"
        and one.payload["response_id"] == other.payload["response_id"]
    )


def _merged(one: Outgoing, other: Outgoing) -> Outgoing:
    text = one.payload["text"] + other.payload["text"]
    return msgspec.structs.replace(one, payload={**one.payload, "text": text})


def _size(message: Outgoing) -> int:
    return len(str(message.payload.get("text", "")))
