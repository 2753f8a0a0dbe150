"""python-socketio as this transport uses it: connections come in, packets go out, and every one of them is bounded.

Only this file and `packets` know the library. What the protocol means is the business of `sessions`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol

import engineio
import socketio
from socketio.exceptions import ConnectionRefusedError as Refused

from lollms_kernel.errors import LollmsError

from .failures import ClientGone
from .link import POLICY_VIOLATION, Link
from .packets import MALFORMED, PacketQueue, ServerPacket
from .settings import SocketioSettings

logger = logging.getLogger(__name__)

NAMESPACE = "/"
LINK = "lollms.link"
"""Where the scope of a WebSocket has its `Link`."""

MAX_REFUSALS = 5
"""Tries to join with one connection before it is ended."""

SWEEPS_PER_TIMEOUT = 4
"""How often within `connect_timeout` it is looked for connections that never joined."""


class Events(Protocol):
    """What the engine tells of."""

    async def connected(self, connection: Connection, scope: Any, auth: Any) -> str | None:
        """A client wants to join; the id by which it may recover the connection, if any. Raises LollmsError."""

    async def event(self, connection: Connection, name: str, arguments: tuple[Any, ...]) -> None:
        """A client has sent an event. Must not wait long: the client's other packets wait meanwhile."""

    async def disconnected(self, connection: Connection, *, lost: bool) -> None:
        """A client has left; `lost` if it did not say so."""


class Connection:
    """One client that has joined, for sending to it."""

    def __init__(self, engine: Engine, sid: str, engine_sid: str) -> None:
        self._engine = engine
        self.sid = sid
        self._engine_sid = engine_sid

    async def room(self) -> None:
        """Wait until there is room for a packet. Raises ClientGone, also where there is none in time."""
        queue = self._engine.queue(self._engine_sid)
        if queue.has_room():
            return
        limit = self._engine.settings.slow_client_timeout
        try:
            async with asyncio.timeout(limit):
                await queue.room()
        except TimeoutError:
            self.drop(f"The client has taken nothing for {limit:g} s.")
            raise ClientGone from None

    async def put(self, packet: str) -> None:
        """Send it at once; a client that leaves far too much untaken is dropped instead. Raises ClientGone."""
        if not self._engine.queue(self._engine_sid).has_room(times=2):
            self.drop("The client asks much and takes nothing.")
            raise ClientGone
        await self._engine.put(self._engine_sid, packet)

    def drop(self, reason: str) -> None:
        """End the connection soon, saying why in the log and, on a WebSocket, to the client."""
        self._engine.drop_soon(self._engine_sid, reason)

    async def leave(self) -> None:
        """Tell the client that it is disconnected, as a server of Socket.IO does."""
        await self._engine.disconnect(self.sid)


class Engine:
    """The Socket.IO server. `handle` is its ASGI application."""

    def __init__(self, settings: SocketioSettings, events: Events) -> None:
        self.settings = settings
        self._events = events
        self._links: dict[str, Link] = {}
        self._connections: dict[str, Connection] = {}
        self._not_joined: dict[str, float] = {}
        self._refusals: dict[str, int] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._private_ids: dict[str, str] = {}
        packets = type("Packet", (ServerPacket,), {"private_ids": self._private_ids})
        self._manager = _client_manager(settings)
        self._server = socketio.AsyncServer(
            async_mode="asgi",
            client_manager=self._manager,
            serializer=packets,
            logger=_library_logger("socketio"),
            engineio_logger=_library_logger("engineio"),
            async_handlers=False,
            namespaces=[NAMESPACE],
            cors_allowed_origins=[],  # the gate decides, for all protocols alike
            max_http_buffer_size=settings.max_message_size,
            http_compression=False,
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
        )
        self._eio: engineio.AsyncServer = self._server.eio
        self._eio.create_queue = self._new_queue
        self._server.on("connect", self._on_connect)
        self._server.on("disconnect", self._on_disconnect)
        self._server.on("*", self._on_event)
        self._take_message = self._eio.handlers["message"]
        self._eio.on("message", self._on_message)
        self.handle: Callable[..., Coroutine[Any, Any, None]] = socketio.ASGIApp(
            self._server, socketio_path="/socket.io"
        )
        self._sweeping = asyncio.create_task(self._sweep())

    @property
    def connections(self) -> int:
        """Connections, joined or not."""
        return len(self._eio.sockets)

    def attach(self, engine_sid: str, link: Link) -> None:
        """A client is reached by this WebSocket from now on."""
        link.engine_sid = engine_sid
        self._links[engine_sid] = link

    def detach(self, link: Link) -> None:
        """A WebSocket has ended."""
        if link.engine_sid is not None and self._links.get(link.engine_sid) is link:
            del self._links[link.engine_sid]

    def end_poll(self, engine_sid: str | None) -> None:
        """Answer the poll of a client that has just left; python-socketio would let it wait until it times out."""
        socket = self._eio.sockets.get(engine_sid)
        if socket is not None and socket.closed:
            socket.queue.put_nowait(None)

    def knows(self, engine_sid: str) -> bool:
        """Whether there is such a connection."""
        return engine_sid in self._eio.sockets

    def forget_ended(self, engine_sid: str | None) -> None:
        """Let go of this connection if it has ended: python-socketio keeps it a while, and meets it with a KeyError."""
        socket = self._eio.sockets.get(engine_sid)
        if socket is not None and socket.closed:
            socket.queue.put_nowait(None)  # for a poll that still waits
            del self._eio.sockets[engine_sid]

    def queue(self, engine_sid: str) -> PacketQueue:
        """What waits for a client. Raises ClientGone."""
        socket = self._eio.sockets.get(engine_sid)
        if socket is None or socket.closed:
            raise ClientGone
        queue: PacketQueue = socket.queue
        return queue

    async def put(self, engine_sid: str, packet: str) -> None:
        """Let a packet wait for its client."""
        await self._eio.send(engine_sid, packet)

    async def disconnect(self, sid: str) -> None:
        """Disconnect a socket, also one of another process where Redis connects them."""
        await self._server.disconnect(sid, NAMESPACE)

    def drop_soon(self, engine_sid: str, reason: str) -> None:
        """End a connection in a task of its own: whoever asks may be part of what has to end."""
        logger.info("a Socket.IO client is disconnected: %s", reason)
        task = asyncio.create_task(self._drop(engine_sid, reason))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def end_connections(self) -> None:
        """Tell every client that this is the end; what waits for them is still sent."""
        for engine_sid, socket in list(self._eio.sockets.items()):
            await socket.close(wait=False, abort=False, reason=self._eio.reason.SERVER_DISCONNECT)
            socket.queue.put_nowait(None)
            self._forget(engine_sid)

    async def close(self) -> None:
        """End everything."""
        self._sweeping.cancel()
        await self.end_connections()
        for engine_sid, link in list(self._links.items()):
            link.drop(1001, "The server is stopping.")
            self._links.pop(engine_sid, None)
        await asyncio.gather(self._sweeping, *self._ending, return_exceptions=True)
        await self._server.shutdown()
        await _close_manager(self._manager)

    # --- what python-socketio calls ---

    async def _on_message(self, engine_sid: str, data: Any) -> None:
        """Nothing that a client sends after its farewell counts: joining then would leave a trace for ever."""
        if self._is_open(engine_sid):
            await self._take_message(engine_sid, data)

    def _is_open(self, engine_sid: str) -> bool:
        socket = self._eio.sockets.get(engine_sid)
        return socket is not None and not socket.closing

    async def _on_connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        engine_sid = self._manager.eio_sid_from_sid(sid, NAMESPACE)
        scope = environ["asgi.scope"]
        link = scope.get(LINK)
        if link is not None:
            self.attach(engine_sid, link)
        connection = Connection(self, sid, engine_sid)
        try:
            private_id = await self._events.connected(connection, scope, auth)
        except LollmsError as error:
            self._refuse(engine_sid, error)
            raise Refused(error.detail, {"code": error.code, "hint": error.hint}) from error
        if not self._is_open(engine_sid):
            # It ended meanwhile, which python-socketio does not tell of clients that have not joined yet.
            await self._events.disconnected(connection, lost=True)
            raise Refused("The connection has ended.")
        self._connections[sid] = connection
        if private_id is not None:
            self._private_ids[sid] = private_id
        self._not_joined.pop(engine_sid, None)
        for name in (
            "wsgi.input",
            "asgi.receive",
            "asgi.send",
        ):  # the library keeps the rest as long as the client
            environ[name] = None

    async def _on_event(self, name: Any, sid: str, *arguments: Any) -> None:
        connection = self._connections.get(sid)
        if connection is None:
            return
        if name is MALFORMED:
            connection.drop(f"It sent a malformed packet: {arguments[0]}.")
            return
        await self._events.event(connection, name, arguments)

    async def _on_disconnect(self, sid: str, reason: str) -> None:
        connection = self._connections.pop(sid, None)
        if connection is not None:
            said = {self._server.reason.CLIENT_DISCONNECT, self._server.reason.SERVER_DISCONNECT}
            await self._events.disconnected(connection, lost=reason not in said)

    # --- bounds ---

    def _new_queue(self, *_arguments: Any, **_options: Any) -> PacketQueue:
        return PacketQueue(self.settings.max_pending_packets, self.settings.max_pending_bytes)

    def _refuse(self, engine_sid: str, error: LollmsError) -> None:
        """Whoever was refused may try again on the same connection, a few times."""
        self._refusals[engine_sid] = self._refusals.get(engine_sid, 0) + 1
        if self._refusals[engine_sid] >= MAX_REFUSALS:
            self.drop_soon(engine_sid, f"Refused {MAX_REFUSALS} times: {error.message}")

    async def _sweep(self) -> None:
        """End connections that do not join in time, or that have left and stay connected below."""
        while True:
            await asyncio.sleep(self.settings.connect_timeout / SWEEPS_PER_TIMEOUT)
            self._refusals = {sid: times for sid, times in self._refusals.items() if self.knows(sid)}
            for engine_sid in self._late_ones(time.monotonic()):
                limit = self.settings.connect_timeout
                self.drop_soon(engine_sid, f"It did not join within {limit:g} s.")

    def _late_ones(self, now: float) -> Iterator[str]:
        waiting = {sid for sid in self._eio.sockets if not self._manager.sid_from_eio_sid(sid, NAMESPACE)}
        self._not_joined = {sid: self._not_joined.get(sid, now) for sid in waiting}
        for sid, since in list(self._not_joined.items()):
            if now - since >= self.settings.connect_timeout:
                del self._not_joined[sid]
                yield sid

    async def _drop(self, engine_sid: str, reason: str) -> None:
        link = self._links.get(engine_sid) or self._link_of_handshake(engine_sid)
        socket = self._eio.sockets.get(engine_sid)
        if link is not None:
            link.drop(POLICY_VIOLATION, reason)
        if socket is not None:
            # `abort`: a client that takes nothing would not take the farewell either
            await socket.close(wait=False, abort=True, reason=self._eio.reason.SERVER_DISCONNECT)
            socket.queue.put_nowait(None)
            self._eio.sockets.pop(engine_sid, None)
        self._forget(engine_sid)

    def _link_of_handshake(self, engine_sid: str) -> Link | None:
        """The WebSocket of a client that has not joined."""
        link: Link | None = self._server.environ.get(engine_sid, {}).get("asgi.scope", {}).get(LINK)
        return link

    def _forget(self, engine_sid: str) -> None:
        self._not_joined.pop(engine_sid, None)
        self._refusals.pop(engine_sid, None)


def _library_logger(name: str) -> logging.Logger:
    """What clients do wrong is no warning of the server's; what the library itself does wrong is an error."""
    library = logging.getLogger(f"{__package__}.{name}")
    library.setLevel(logging.ERROR)
    return library


def _client_manager(settings: SocketioSettings) -> Any:
    if settings.redis_url is None:
        return socketio.AsyncManager()
    options: dict[str, Any] = {"socket_connect_timeout": 5.0}
    if settings.redis_password is not None:
        options["password"] = settings.redis_password
    return socketio.AsyncRedisManager(
        settings.redis_url,
        channel=settings.redis_channel,
        redis_options=options,
        logger=_library_logger("redis"),
    )


async def _close_manager(manager: Any) -> None:
    listening = getattr(manager, "thread", None)  # a task, whatever the name says
    if listening is not None:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    if getattr(manager, "redis", None) is not None:
        await manager.pubsub.aclose()
        await manager.redis.aclose()
