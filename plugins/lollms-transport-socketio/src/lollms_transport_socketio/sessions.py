"""All sockets of this process: who may join, whose session goes on, and what happens when they leave."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from lollms_kernel.contracts import Caller, Kernel
from lollms_kernel.errors import RateLimited

from .auth import Auth, identify, read_auth
from .conversation import Conversation
from .packets import event_packet
from .recovery import EventLog, Offer
from .selection import OwnSelection, Selections, SharedSelection, first_selection
from .session import Session
from .session_store import SessionRecord, SessionStore, session_key
from .settings import SocketioSettings

if TYPE_CHECKING:
    from .engine import Connection, Engine

logger = logging.getLogger(__name__)

TAKEOVER_TIMEOUT = 2.0
TAKEOVER_LOOK = 0.05
"""How long, and how often, it is waited until another process has let go of a session."""


class Sessions:
    """What the engine tells of (`engine.Events`)."""

    def __init__(self, kernel: Kernel, settings: SocketioSettings, store: SessionStore) -> None:
        self._kernel = kernel
        self._settings = settings
        self._store = store
        self._first, missing = first_selection(kernel, settings.personalities)
        if missing:
            logger.warning("transports.socketio.personalities: there is no %s", ", ".join(map(repr, missing)))
        self._shared = SharedSelection(store, self._first) if settings.selection == "shared" else None
        self._joined: dict[str, Session] = {}
        self._by_key: dict[str, Session] = {}
        self._recoverable: dict[str, Session] = {}
        self._away: dict[Session, asyncio.Task[None]] = {}
        self._sockets_of: Counter[str] = Counter()
        self.engine: Engine

    async def connected(self, connection: Connection, scope: Any, auth: Any) -> str | None:
        """See `engine.Events.connected`."""
        asked = read_auth(auth)
        caller = identify(self._kernel, scope, asked, query_key=self._settings.allow_query_key)
        self._check_count(caller)
        session, backlog = await self._found(caller, asked.offer) or await self._begun(
            connection, caller, asked
        )
        self._joined[connection.sid] = session
        self._sockets_of[caller.tenant] += 1
        session.attach(connection, backlog)
        return None if session.log is None else session.log.private_id

    async def event(self, connection: Connection, name: str, arguments: tuple[Any, ...]) -> None:
        """See `engine.Events.event`."""
        session = self._joined.get(connection.sid)
        if session is not None:
            await session.accept(name, arguments)

    async def disconnected(self, connection: Connection, *, lost: bool) -> None:
        """See `engine.Events.disconnected`: whoever may come back keeps what it had for a while."""
        session = self._leave(connection)
        if session is None:
            return
        if lost and session.log is not None:
            session.detach()
            self._away[session] = asyncio.create_task(self._wait_for(session))
        else:
            await self._end(session)

    async def idle(self) -> None:
        """Wait until no prompt is being answered."""
        await asyncio.gather(*(session.idle() for session in self._joined.values()))

    async def close(self) -> None:
        """End all sessions."""
        for waiting in list(self._away.values()):
            waiting.cancel()
        for session in [*self._joined.values(), *self._away]:
            await self._end(session)
        self._joined.clear()

    # --- joining ---

    def _check_count(self, caller: Caller) -> None:
        limit = self._settings.max_connections_per_key
        if limit is not None and caller.tenant and self._sockets_of[caller.tenant] >= limit:
            raise RateLimited(
                f"This API key may have {limit} sockets at once.", hint="Close one of them.", retry_after=1
            )

    async def _found(self, caller: Caller, offer: Offer | None) -> tuple[Session, list[str]] | None:
        """The session that the client wants to recover, and what it missed; None where that is not possible."""
        session = None if offer is None else self._recoverable.get(offer.private_id)
        if session is None or session.log is None or session.caller.tenant != caller.tenant:
            return None
        missed = session.log.since(offer.offset if offer else "")
        if missed is None:
            return None
        waiting = self._away.pop(session, None)
        if waiting is not None:
            waiting.cancel()
        old = session.connection
        if old is not None:  # nobody has noticed yet that it is dead
            self._leave(old)
            session.detach()
            old.drop("The client came back on another connection.")
        return session, missed

    async def _begun(self, connection: Connection, caller: Caller, asked: Auth) -> tuple[Session, list[str]]:
        """A session of its own, or the stored one that the client resumes; and what to tell it first."""
        limit = self._settings.history_limit
        log = EventLog() if asked.recovery and self._settings.recovery_seconds else None
        if asked.session is None:
            session = self._made(caller, OwnSelection(self._first), Conversation(limit), log)
            if log is not None:
                self._recoverable[log.private_id] = session
            return session, []
        key = session_key(caller.tenant, asked.session)
        record = await self._taken_over(key)
        known = record or SessionRecord(selection=self._first)
        own = OwnSelection(known.selection)
        session = self._made(caller, own, Conversation(limit, list(known.turns)), log, key, connection.sid)
        self._by_key[key] = session
        await self._store.save(key, _record(session, own, connection.sid))
        if log is not None:
            self._recoverable[log.private_id] = session
        return session, [await self._told(session, resumed=record is not None)]

    def _made(
        self,
        caller: Caller,
        own: OwnSelection,
        conversation: Conversation,
        log: EventLog | None,
        key: str | None = None,
        holder: str = "",
    ) -> Session:
        """`holder` is the socket that the stored session names as its owner."""

        async def keep(session: Session) -> None:
            nonlocal holder
            if key is None or self._by_key.get(key) is not session:
                return
            record = await self._store.load(key)
            if record is not None and record.owner not in ("", holder):
                return  # another process has taken it over
            holder = session.connection.sid if session.connection else ""
            await self._store.save(key, _record(session, own, holder))

        selections: Selections = self._shared or own
        return Session(
            self._kernel,
            caller,
            self._settings,
            selections,
            conversation,
            log=log,
            key=key,
            keep=keep,
        )

    async def _told(self, session: Session, *, resumed: bool) -> str:
        """The event by which a client hears what it resumed; only those who ask for a session get it."""
        selection = await session.selection()
        payload = {
            "resumed": resumed,
            "turns": len(session.conversation.turns),
            "binding_name": selection.binding or self._kernel.default_binding("ttt"),
            "model_name": selection.model,
            "personalities": list(selection.personalities),
            "personality": -1 if selection.active is None else selection.active,
        }
        if session.log is not None:
            return session.log.note("session", payload)
        return event_packet("session", payload)

    async def _taken_over(self, key: str) -> SessionRecord | None:
        """The stored session, once whoever used it until now has let go of it."""
        mine = self._by_key.get(key)
        if mine is not None:
            await self._take_from(mine)
        record = await self._store.load(key)
        if record is None or not record.owner or self._settings.redis_url is None:
            return record
        await self.engine.disconnect(record.owner)
        deadline = asyncio.get_running_loop().time() + TAKEOVER_TIMEOUT
        while record.owner and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(TAKEOVER_LOOK)
            record = await self._store.load(key) or SessionRecord()
        return record

    async def _take_from(self, session: Session) -> None:
        old = session.connection
        waiting = self._away.pop(session, None)
        if waiting is not None:
            waiting.cancel()
        if old is not None:
            self._leave(old)
        await self._end(session)
        if old is not None:
            await old.leave()

    # --- leaving ---

    def _leave(self, connection: Connection) -> Session | None:
        session = self._joined.pop(connection.sid, None)
        if session is not None:
            self._sockets_of[session.caller.tenant] -= 1
            if not self._sockets_of[session.caller.tenant]:
                del self._sockets_of[session.caller.tenant]
        return session

    async def _wait_for(self, session: Session) -> None:
        """Give a client time to come back; end its session when it does not."""
        await asyncio.sleep(self._settings.recovery_seconds)
        self._away.pop(session, None)
        await self._end(session)

    async def _end(self, session: Session) -> None:
        await session.close()
        session.detach()
        await session.keep()  # nobody owns it now
        if session.log is not None:
            self._recoverable.pop(session.log.private_id, None)
        if session.key is not None and self._by_key.get(session.key) is session:
            del self._by_key[session.key]


def _record(session: Session, own: OwnSelection, owner: str) -> SessionRecord:
    return SessionRecord(turns=session.conversation.turns, selection=own.selection, owner=owner)
