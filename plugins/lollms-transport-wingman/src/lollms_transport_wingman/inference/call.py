"""One HTTP request on its way through an endpoint, and the ways to answer it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from lollms_kernel.contracts import Kernel
from lollms_kernel.errors import InvalidRequest, PayloadTooLarge

from .bodies import IN_THREAD, Form, decode_json, read_form, read_json
from .errors import JSON
from .fields import Fields

if TYPE_CHECKING:
    from .server import Inference

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

encode = msgspec.json.Encoder().encode

MAX_QUERY = 64
_SERVER = (b"server", b"llama.cpp")
"""By which clients know that llama-server's own endpoints are there."""


class Call:
    """What an endpoint receives. `main_port` says which port it came in on."""

    def __init__(self, server: Inference, scope: Scope, send: Send, body: bytes, *, main_port: bool) -> None:
        self.server = server
        self.kernel: Kernel = server.kernel
        self.scope = scope
        self.body = body
        self.main_port = main_port
        self.started = False
        """Whether the status line is out, so that an error has to be told otherwise."""
        self._send = send

    @property
    def tenant(self) -> str:
        """Who asks."""
        return str(self.scope.get("state", {}).get("tenant", ""))

    @cached_property
    def headers(self) -> dict[str, str]:
        """By lower-case name."""
        return {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self.scope["headers"]
        }

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's parameters; those without a value are empty."""
        text = self.scope.get("query_string", b"").decode("latin-1")
        try:
            return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_QUERY))
        except ValueError:
            raise InvalidRequest(f"The query has more than {MAX_QUERY} parameters.") from None

    async def json(self) -> Fields:
        """The body's object."""
        if len(self.body) < IN_THREAD:
            return Fields(read_json(self.body))
        return Fields(await asyncio.to_thread(read_json, self.body))

    async def any_json(self) -> Any:
        """The body's value, whatever it is."""
        return await asyncio.to_thread(decode_json, self.body)

    async def form(self) -> Form:
        """The body as a form with files."""
        return await asyncio.to_thread(read_form, self.body, self.headers.get("content-type", ""))

    # --- answers ---

    async def send_json(self, value: object, status: int = 200) -> None:
        """Answer with a JSON value."""
        await self.send_bytes(encode(value), JSON, status)

    async def send_bytes(
        self,
        body: bytes,
        content_type: str,
        status: int = 200,
        extra: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Answer with these bytes."""
        length = str(len(body)).encode()
        headers = [(b"content-type", content_type.encode("latin-1")), (b"content-length", length), *extra]
        await self._start(status, headers)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def start_events(self) -> None:
        """Begin an answer of server-sent events."""
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        await self._start(200, headers)

    async def send_part(self, data: bytes) -> None:
        """A part of an answer that has begun."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """The end of an answer that came in parts."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        if not self.main_port:
            headers.append(_SERVER)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


async def read_body(scope: Scope, receive: Receive, largest: int) -> bytes:
    """The whole body. Raises PayloadTooLarge as soon as it is too long."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionAbortedError
        part = message.get("body", b"")
        size += len(part)
        if size > largest:
            raise PayloadTooLarge(
                f"The body has more than {largest} bytes.", hint="Send less or raise server.max_body_size."
            )
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
