"""The transport: Socket.IO on the main port, below /socket.io/."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs

import msgspec
from litestar import asgi
from litestar.types import Receive, Scope, Send

from lollms_kernel.contracts import Kernel, Transport, TransportSettings
from lollms_kernel.disconnect import unless_gone
from lollms_kernel.errors import (
    ConfigError,
    InvalidRequest,
    LollmsError,
    Unavailable,
)

from .posts import Replayed, read_post
from .settings import SocketioSettings

if TYPE_CHECKING:
    from .engine import Engine
    from .sessions import Sessions

logger = logging.getLogger(__name__)

PATH = "/socket.io/"
LAST_WORDS = 2.0
"""Seconds beyond the grace in which clients still hear that their answer was broken off."""


class SocketioTransport(Transport):
    """LoLLMs' Socket.IO events, for many clients at once."""

    name = "socketio"
    Settings: ClassVar[type[TransportSettings]] = SocketioSettings
    settings: SocketioSettings

    def __init__(self, kernel: Kernel, settings: SocketioSettings) -> None:
        super().__init__(kernel, settings)
        settings.check()
        self._lifetime = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._engine: Engine | None = None
        self._sessions: Sessions | None = None
        self._closed = False

    @property
    def prefixes(self) -> Sequence[str]:
        """See `contracts.Transport.prefixes`."""
        return (PATH,)

    @property
    def late_key_paths(self) -> Sequence[str]:
        """See `contracts.Transport.late_key_paths`: the key may come in the `auth` payload."""
        return (PATH, f"{PATH}*")

    def route_handlers(self) -> Sequence[Any]:
        """See `contracts.Transport.route_handlers`."""

        @asgi("/socket.io", is_mount=True, copy_scope=True)
        async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
            await self._handle(dict(scope), receive, send)

        return [mounted]

    async def open(self) -> None:
        """Look whether it can work. The library is imported when the first client comes: most servers never need it."""
        if self.settings.redis_url is not None and importlib.util.find_spec("redis") is None:
            raise ConfigError(
                "transports.socketio.redis_url needs the package redis, which is not installed.",
                hint="Install it: pip install 'lollms-transport-socketio[redis]'",
            )

    async def drain(self, grace: float) -> None:
        """Tell everybody that this is the end, once what is under way has been told."""
        if self._engine is None or self._sessions is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(grace + LAST_WORDS):
                await self._sessions.idle()
        await self._engine.end_connections()

    async def close(self) -> None:
        """Disconnect whoever is left."""
        self._closed = True
        await self._lifetime.aclose()

    # --- connections ---

    async def _handle(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            engine = await self._ready()
            query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
            engine_sid = query.get("sid", [None])[0]
            if "j" in query:
                raise InvalidRequest("JSONP is not served.", hint="Use polling or WebSocket.")
            if engine_sid is None and engine.connections >= self.settings.max_connections:
                raise Unavailable(
                    f"The server has {engine.connections} Socket.IO connections, as many as it takes.",
                    hint="Try again later, or raise transports.socketio.max_connections.",
                    retry_after=10,
                )
            if scope["type"] == "http" and scope["method"] == "POST":
                receive = await read_post(scope, receive, self.settings.max_message_size)
        except LollmsError as error:
            await self._refuse(error, scope, send)
            return
        engine.forget_ended(engine_sid)
        scope |= {"path": PATH, "root_path": ""}
        if scope["type"] == "websocket":
            await self._serve_websocket(engine, engine_sid, scope, receive, send)
        elif scope["method"] == "GET" and engine_sid is not None:
            # After the request itself comes only that the client has gone, and with it goes what it asked for.
            await receive()
            await unless_gone(receive, engine.handle(scope, Replayed(b"", receive), send))
        else:
            await engine.handle(scope, receive, send)
            engine.end_poll(engine_sid)

    async def _serve_websocket(
        self, engine: Engine, engine_sid: str | None, scope: dict[str, Any], receive: Any, send: Any
    ) -> None:
        from .engine import LINK
        from .link import Link

        link = Link(receive, send, self.settings.max_message_size)
        scope[LINK] = link
        if engine_sid is not None and engine.knows(engine_sid):
            engine.attach(engine_sid, link)
        try:
            await engine.handle(scope, _Opened(link, receive), link.send)
        finally:
            engine.detach(link)

    async def _ready(self) -> Engine:
        if self._engine is not None:
            return self._engine
        async with self._starting:
            if self._engine is None:
                if self._closed:
                    raise Unavailable("The server is stopping.", retry_after=5)
                await asyncio.to_thread(importlib.import_module, "lollms_transport_socketio.engine")
                from .engine import Engine
                from .session_store import open_store
                from .sessions import Sessions

                store = await self._lifetime.enter_async_context(open_store(self.settings, self.kernel.root))
                sessions = self._sessions = Sessions(self.kernel, self.settings, store)
                engine = sessions.engine = Engine(self.settings, sessions)
                self._lifetime.push_async_callback(sessions.close)
                self._lifetime.push_async_callback(engine.close)
                self._engine = engine
            return self._engine

    async def _refuse(self, error: LollmsError, scope: dict[str, Any], send: Any) -> None:
        body, content_type = self.error_body(error)
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        if error.retry_after is not None:
            headers.append((b"retry-after", str(int(error.retry_after)).encode()))
        kind = "http.response"
        if scope["type"] == "websocket":
            if "websocket.http.response" not in scope.get("extensions", {}):
                await send({"type": "websocket.close", "code": 1013, "reason": error.message[:120]})
                return
            kind = "websocket.http.response"
        await send({"type": f"{kind}.start", "status": error.status, "headers": headers})
        await send({"type": f"{kind}.body", "body": body})

    def error_body(self, error: LollmsError) -> tuple[bytes, str]:
        """As Engine.IO clients show it."""
        body = {"code": error.code, "message": error.detail, "detail": error.detail}
        return msgspec.json.encode(body), "application/json"


class _Opened:
    """Receives the handshake itself from the web server, everything after it through the link."""

    def __init__(self, link: Any, receive: Any) -> None:
        self._link = link
        self._receive = receive
        self._is_open = False

    async def __call__(self) -> Any:
        if not self._is_open:
            self._is_open = True
            return await self._receive()
        return await self._link.receive()
