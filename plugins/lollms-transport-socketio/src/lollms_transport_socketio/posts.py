"""What a polling client posts: read and checked before python-socketio, which would swallow what it cannot read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from lollms_kernel.errors import InvalidRequest, PayloadTooLarge

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MAX_PACKETS = 1024
"""What one POST may bring: clients send what they have buffered in one piece. Its bytes are limited separately."""

SEPARATOR = b"\x1e"
FIRST_BYTES = frozenset(b"12345b")
"""How packets of a client begin: close, ping, pong, message, upgrade, and binary messages as base64."""


async def read_post(scope: MutableMapping[str, Any], receive: Receive, limit: int) -> Receive:
    """Where the body can be received again; its length is in the headers of `scope` then.

    Raises PayloadTooLarge beyond `limit` bytes, and InvalidRequest for what is no list of packets."""
    body = await _body(receive, limit)
    packets = body.split(SEPARATOR)
    if len(packets) > MAX_PACKETS or any(not packet or packet[0] not in FIRST_BYTES for packet in packets):
        raise InvalidRequest("The body is no list of Engine.IO 4 packets.")
    try:
        body.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not UTF-8.") from None
    headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
    scope["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
    return Replayed(body, receive)


async def _body(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit:
            raise PayloadTooLarge(
                f"The message is larger than {limit} bytes.",
                hint="Send less, or raise transports.socketio.max_message_size.",
            )
        if message["type"] != "http.request" or not message.get("more_body"):
            return bytes(body)


class Replayed:
    """Receives a request whose body was read already."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> MutableMapping[str, Any]:
        """The request, then whatever comes after it."""
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
