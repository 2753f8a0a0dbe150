"""One WebSocket below python-socketio: messages of bounded size, and an end that comes at once and says why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

NORMAL = 1000
PROTOCOL_ERROR = 1002
POLICY_VIOLATION = 1008
TOO_BIG = 1009
TRY_AGAIN_LATER = 1013

CLOSE = "1"
CLIENT_PACKETS = frozenset("12345")
"""First characters of what a client may send: close, ping, pong, message, upgrade."""

_REASON_LENGTH = 120
"""A close frame holds 123 bytes of reason."""


class Link:
    """Stands between the web server and python-socketio, which itself cannot drop a client that takes nothing."""

    def __init__(self, receive: Receive, send: Send, max_size: int) -> None:
        self._receive = receive
        self._send = send
        self._max_size = max_size
        self.engine_sid: str | None = None
        """The connection that it belongs to, once that is known."""
        self._sending: asyncio.Task[Any] | None = None
        self._said_goodbye = False
        self._dropped: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def drop(self, code: int, reason: str) -> None:
        """End the connection now, whatever is still waiting to be sent."""
        if not self._dropped.done():
            self._dropped.set_result((code, reason.encode()[:_REASON_LENGTH].decode(errors="ignore")))
            if self._sending is not None:
                self._sending.cancel()

    async def receive(self) -> Message:
        """The next message; a disconnect once the link is dropped or the client has said goodbye."""
        if self._said_goodbye:
            return {"type": "websocket.disconnect", "code": NORMAL}
        coming = asyncio.ensure_future(self._receive())
        either: set[asyncio.Future[Any]] = {coming, self._dropped}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not coming.done():
                coming.cancel()
        if self._dropped.done():
            return {"type": "websocket.disconnect", "code": self._dropped.result()[0]}
        message = coming.result()
        if message["type"] == "websocket.receive":
            self._check(message.get("text") or "")
        if self._dropped.done():
            return {"type": "websocket.disconnect", "code": self._dropped.result()[0]}
        return message

    def _check(self, text: str) -> None:
        if len(text) > self._max_size:
            self.drop(
                TOO_BIG, f"The message has {len(text)} characters; at most {self._max_size} are allowed."
            )
        elif text[:1] not in CLIENT_PACKETS:
            self.drop(PROTOCOL_ERROR, "This is no packet of Engine.IO 4.")
        else:
            self._said_goodbye = text[:1] == CLOSE

    async def send(self, message: Message) -> None:
        """Send it. Raises OSError once the link is dropped."""
        if self._dropped.done():
            if message["type"] != "websocket.close":
                raise OSError("the connection was ended")
            code, reason = self._dropped.result()
            message = {**message, "code": code, "reason": reason}
        self._sending = asyncio.current_task()
        try:
            await self._send(message)
        except asyncio.CancelledError:
            task = self._sending
            if not self._dropped.done() or task is None or task.uncancel():
                raise  # somebody else wants this task to end
            raise OSError("the connection was ended") from None
        finally:
            self._sending = None
