"""What comes in and goes out over HTTP, before and after anybody knows what it means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from .permission import Visitor

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = "application/json; charset=utf-8"
MAX_BODY = 256 * 1024
MAX_QUERY = 64 * 1024
METHODS = "GET"


class Reply(msgspec.Struct, frozen=True):
    """Status and body; None for an empty one."""

    status: int = 200
    value: Any = None
    text: str | None = None
    headers: Mapping[str, str] = {}

    @property
    def body(self) -> bytes:
        """The bytes. Keys are sorted, as the original sorts them."""
        if self.text is not None:
            return self.text.encode()
        return b"" if self.value is None else msgspec.json.encode(self.value, order="deterministic")


class Request:
    """One request: path, query and who asks."""

    def __init__(self, scope: Scope, path: str, origins: tuple[str, ...]) -> None:
        self.method: str = scope["method"]
        self.path = path
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        client = scope.get("client")
        self.headers = headers
        self.visitor = Visitor(
            headers, client[0] if client else "", scope.get("state", {}).get("caller"), origins
        )
        self._query = scope.get("query_string", b"")

    def query(self) -> dict[str, str]:
        """The parameters, the first of each name; empty ones count as missing. Raises ValueError."""
        if len(self._query) > MAX_QUERY:
            raise ValueError("the query is too long")
        found: dict[str, str] = {}
        text = self._query.decode("ascii")
        for name, value in parse_qsl(text, encoding="utf-8", errors="strict", max_num_fields=100):
            found.setdefault(name, value)
        return found


async def read_body(receive: Receive) -> bytes | None:
    """The body, None if it is too long."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            return bytes(body)


async def send_reply(reply: Reply, request: Request, send: Send) -> None:
    """Send it; to HEAD without its body."""
    body = reply.body
    headers = {"content-type": JSON, **reply.headers}
    if reply.status != 204:
        headers["content-length"] = str(len(body))
    if "origin" not in request.headers:  # to pages the gate says who may read
        headers["access-control-allow-origin"] = "*"
    headers["access-control-allow-methods"] = METHODS
    headers["access-control-allow-headers"] = "Content-Type"
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
    await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})
