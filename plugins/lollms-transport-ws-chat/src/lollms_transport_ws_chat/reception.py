"""Takes connections in, from the handshake to the last message: who is it, may they, and what do they say."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
from litestar.exceptions import WebSocketDisconnect, WebSocketException

from lollms_kernel.contracts import Kernel
from lollms_kernel.errors import LollmsError
from lollms_kernel.pace import TokenBucket

from .actor import Actor
from .backend import Choice
from .chat_log import ChatLog
from .connection import CLOSE_TIMEOUT, Socket, WebSocketLink
from .credentials import chosen, key_offered
from .events import (
    Connected,
    Disconnected,
    EndOfTurn,
    Interrupt,
    Outgoing,
    PlaybackFinished,
    PlaybackStarted,
    UserInput,
    UserSpeaks,
)
from .limits import ConnectionLimit
from .messages import (
    FEATURES,
    MAX_FRAME,
    BadMessage,
    error,
    other_client,
    read,
    response_named,
    seconds,
    user_text,
    valid_client_id,
)
from .sessions import NoSession, Sessions
from .settings import WsChatSettings
from .storage import SessionKey

GOING_AWAY = 1001
REFUSED = 1008
TOO_BIG = 1009
BROKEN = 1011
TRY_LATER = 1013

MAX_REFUSED = 200
"""Messages over the limit in a row after which a connection is closed."""


class Reception:
    """Serves every WebSocket of this protocol, whatever port it came in on."""

    def __init__(self, kernel: Kernel, settings: WsChatSettings, sessions: Sessions, log: ChatLog) -> None:
        self._kernel = kernel
        self._settings = settings
        self._sessions = sessions
        self._log = log
        self._limit = ConnectionLimit(settings.max_connections, settings.max_connections_per_address)
        self._numbers = itertools.count(1)
        self._links: dict[int, WebSocketLink] = {}
        self._visits: set[asyncio.Task[Any]] = set()
        self._leaving = False

    async def serve(self, socket: Socket) -> None:
        """One connection, until it ends."""
        offered = list(socket.scope.get("subprotocols") or ())
        try:
            await socket.accept(subprotocols=chosen(offered))
            await self._admit(socket, offered)
        except (WebSocketException, OSError, RuntimeError):
            pass  # gone before it was in

    async def drain(self, grace: float) -> None:
        """Take nothing more in, let answers in the making out within `grace` seconds, then close with 1001."""
        self._leaving = True
        await self._sessions.drain_replies(grace)
        visits = set(self._visits)
        for link in self._links.values():
            link.close(GOING_AWAY, "The server is stopping.")
        if visits:
            await asyncio.wait(visits, timeout=CLOSE_TIMEOUT)

    # --- the door ---

    async def _admit(self, socket: Socket, offered: list[str]) -> None:
        client = socket.scope.get("client")
        with self._limit.counted(client[0] if client else "") as room:
            if self._leaving:
                await socket.close(GOING_AWAY, "The server is stopping.")
                return
            if not room:
                self._sessions.metrics.dropped.labels("connection").inc()
                await socket.close(TRY_LATER, "Too many connections.")
                return
            client_id = (socket.query_params.get("clientId") or "").strip()
            if not valid_client_id(client_id):
                what = "is missing" if not client_id else "must be 1 to 128 printable characters"
                self._log.write("WARNING", "", f"Connection refused: clientId {what}")
                await socket.close(REFUSED, f"clientId {what}")
                return
            if not self._origin_allowed(socket):
                self._log.write("WARNING", client_id, "Connection refused: origin not allowed")
                await socket.close(REFUSED, "This origin is not allowed.")
                return
            caller = await self._authenticated(socket, client_id, offered)
            if caller is not None:
                await self._visit(socket, client_id, caller)

    def _origin_allowed(self, socket: Socket) -> bool:
        allowed, origin = self._settings.allowed_origins, socket.headers.get("origin")
        return allowed is None or origin is None or origin in allowed

    async def _authenticated(self, socket: Socket, client_id: str, offered: list[str]) -> Any:
        """The caller; None if the connection was closed for want of one."""
        caller = socket.scope["state"].get("caller")
        if caller is not None:
            return caller
        key = key_offered(offered)
        try:
            if not key:
                async with asyncio.timeout(self._settings.auth_timeout):
                    key = await self._key_in_first_message(socket)
            return self._kernel.caller(key)
        except TimeoutError:
            refusal = error(client_id, "key_missing", "No API key came in time.")
        except (LollmsError, BadMessage) as wrong:
            hint = "Send it in a header, as a subprotocol, or in an AUTH message first."
            refusal = error(client_id, wrong.code, f"{wrong.message} {hint}")
        self._log.write("WARNING", client_id, "Connection refused: no valid API key")
        await socket.send_json({"type": refusal.type, "payload": refusal.payload})
        await socket.close(REFUSED, "A valid API key is needed.")
        return None

    async def _key_in_first_message(self, socket: Socket) -> str:
        """The key of an AUTH message, "" if the first message is another one. Raises BadMessage."""
        event: Any = await socket.receive()
        if event["type"] != "websocket.receive":
            raise WebSocketDisconnect(detail="the client left before it sent a key")
        frame = event.get("text")
        message = read(event.get("bytes") or b"" if frame is None else frame, FEATURES)
        key = message.payload.get("api_key", "") if message.type == "AUTH" else ""
        if not isinstance(key, str):
            raise BadMessage("invalid_payload", "`payload.api_key` must be a string.")
        return key

    # --- inside ---

    async def _visit(self, socket: Socket, client_id: str, caller: Any) -> None:
        query = socket.query_params
        choice = Choice(language=(query.get("language") or "")[:35] or None)
        if self._settings.allow_client_choice:
            choice = msgspec.structs.replace(
                choice,
                binding=query.get("binding") or None,
                model=query.get("model") or None,
                personality=query.get("personality") or None,
            )
        link = WebSocketLink(socket, next(self._numbers), client_id, caller, choice)
        wanted = {name.strip() for name in (query.get("features") or "").split(",")}
        visit = Visit(self._sessions, self._settings, self._log, link, FEATURES & wanted)
        task = asyncio.current_task()
        assert task is not None
        self._visits.add(task)
        self._links[link.number] = link
        self._sessions.add_link(link.number, link)
        writing = link.start()
        reading = asyncio.get_running_loop().create_task(visit.read(socket))
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({reading}, timeout=CLOSE_TIMEOUT)  # the client's answer to our goodbye
            if reading.done() and not reading.cancelled() and (wrong := reading.exception()) is not None:
                self._log.write("ERROR", client_id, "The connection failed", trace=wrong)
                link.close(BROKEN, "Internal error.")
                await asyncio.wait({writing}, timeout=CLOSE_TIMEOUT)
        finally:
            for side in (reading, writing):
                side.cancel()
            await asyncio.wait({reading, writing})
            del self._links[link.number]
            self._sessions.remove_link(link.number)
            visit.leave()
            self._visits.discard(task)


class Visit:
    """What a client does on one connection: it speaks for its own session, and perhaps for others."""

    def __init__(
        self,
        sessions: Sessions,
        settings: WsChatSettings,
        log: ChatLog,
        link: WebSocketLink,
        features: frozenset[str],
    ) -> None:
        self._sessions = sessions
        self._settings = settings
        self._log = log
        self._link = link
        self._features = features
        self._attached: dict[SessionKey, Actor] = {}

    async def read(self, socket: Socket) -> None:
        """Take messages until the client goes; what comes while the server stops is kept with the session."""
        settings, link = self._settings, self._link
        clock = asyncio.get_running_loop().time
        bucket = TokenBucket(settings.messages_per_second, settings.message_burst, clock)
        refused = 0
        try:
            actor = await self._session(link.client_id)
        except NoSession as none:
            link.close(TRY_LATER, str(none))
            return
        actor.post(Connected(link.number, self._features))
        while True:
            event: Any = await socket.receive()
            if event["type"] != "websocket.receive":
                return
            if link.closing:
                continue
            frame = event["text"] if event.get("text") is not None else event.get("bytes") or b""
            if len(frame) > MAX_FRAME:
                link.close(TOO_BIG, "The message is larger than 1 MiB.")
            elif bucket.take():
                refused = 0
                await self._take(frame)
            else:
                refused += 1
                self._tell("rate_limited", "Too many messages: wait a moment.", retryable=True)
                if refused > MAX_REFUSED:
                    link.close(REFUSED, "Too many messages.")

    def leave(self) -> None:
        """The connection is gone: tell every session that it spoke for."""
        unsent = self._link.unsent()
        for key, actor in self._attached.items():
            own = tuple(message for message in unsent if message.payload.get("client_id") == key.client_id)
            actor.post(Disconnected(self._link.number, own))

    async def _session(self, client_id: str) -> Actor:
        key = SessionKey(self._link.caller.tenant, client_id)
        actor = await self._sessions.find(key)
        self._attached[key] = actor
        return actor

    async def _take(self, frame: str | bytes) -> None:
        try:
            message = read(frame, self._features)
            if message.type == "USER_INPUT":
                await self._user_input(message.payload)
            elif message.type == "PING":
                self._pong(message.payload)
            elif message.type != "AUTH":  # a key that was needed has come; another one changes nothing
                self._post_own(message.type, message.payload)
        except BadMessage as bad:
            self._tell(bad.code, bad.message)
        except NoSession as none:
            self._tell("no_session", str(none), retryable=True)

    async def _user_input(self, payload: dict[str, Any]) -> None:
        link = self._link
        text = user_text(payload, self._settings.max_text_chars)
        named = other_client(payload) or link.client_id
        if named != link.client_id:
            if not self._settings.allow_client_id_override:
                raise BadMessage("client_id_mismatch", "`payload.client_id` must be that of the connection.")
            self._log.write("WARNING", link.client_id, "Input for another session", for_client=named)
        actor = await self._session(named)
        actor.post(UserInput(link.number, text, link.client_id, self._features))

    def _post_own(self, kind: str, payload: dict[str, Any]) -> None:
        """A message about the connection's own session."""
        link = self._link
        own = self._attached[SessionKey(link.caller.tenant, link.client_id)]
        number = link.number
        match kind:
            case "PLAYBACK_STARTED":
                response = response_named(payload, needed=True) or ""
                own.post(PlaybackStarted(number, response, seconds(payload, "duration")))
            case "PLAYBACK_FINISHED":
                own.post(PlaybackFinished(number, response_named(payload, needed=True) or ""))
            case "INTERRUPT":
                played = seconds(payload, "played_ms", unit=0.001)
                own.post(Interrupt(number, response_named(payload, needed=False), played))
            case "END_OF_TURN":
                own.post(EndOfTurn(number))
            case "USER_PARTIAL":
                own.post(UserSpeaks(number))

    def _pong(self, payload: dict[str, Any]) -> None:
        known = payload.get("id")
        short = isinstance(known, str) and len(known) <= 128
        exact = isinstance(known, int | float) and abs(known) <= 2**53
        answer = {"id": known} if short or exact else {}
        self._link.send(Outgoing("PONG", {"client_id": self._link.client_id, **answer}))

    def _tell(self, code: str, message: str, *, retryable: bool = False) -> None:
        self._sessions.metrics.errors.labels(code).inc()
        self._log.write("WARNING", self._link.client_id, f"Message refused: {message}", code=code)
        self._link.send(error(self._link.client_id, code, message, retryable=retryable))
