"""All sessions of this server: found by their key, stored when they change, dropped when their time is over."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable

from .actor import Actor, Link
from .backend import Backend
from .chat_log import ChatLog
from .events import Suspended
from .metrics import Metrics
from .session import Rules, Session
from .snapshot import restored, taken
from .storage import SessionKey, Storage
from .turn_detection import Judge

SAVE_DELAY = 0.5
"""Seconds in which changes of a session are collected before it is stored."""

SAVES_AT_ONCE = 16
RETRY_DELAY = 2.0
TIDY_EVERY = 600.0
CLOSED_BY_ADMIN = 4003


class NoSession(Exception):
    """The session cannot be had now; the text may be shown to its client."""


class Sessions:
    """The `Surroundings` of every session. Use `open` and `close`; in between, everything runs on one event loop."""

    def __init__(
        self,
        rules: Rules,
        backend: Backend,
        judge: Judge,
        storage: Storage,
        log: ChatLog,
        metrics: Metrics,
        *,
        language: str | None = None,
        reply_timeout: float = 120.0,
        limit: int = 10_000,
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.rules = rules
        self.backend = backend
        self.judge = judge
        self.storage = storage
        self.log = log
        self.metrics = metrics
        self.language = language
        self.reply_timeout = reply_timeout
        self._limit = limit
        self._clock = clock or asyncio.get_running_loop().time
        self._wall = wall
        self._links: dict[int, Link] = {}
        self._actors: dict[SessionKey, Actor] = {}
        self._loading: dict[SessionKey, asyncio.Future[Actor]] = {}
        self._idle: OrderedDict[SessionKey, None] = OrderedDict()
        """Disconnected sessions, the longest disconnected ones first."""
        self._unsaved: dict[SessionKey, Actor] = {}
        self._saving: dict[SessionKey, asyncio.Future[None]] = {}
        self._deleting: set[SessionKey] = set()
        self._changed = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()
        self._chores: list[asyncio.Task[None]] = []

    # --- lifetime ---

    def open(self) -> None:
        """Begin to store what changes."""
        loop = asyncio.get_running_loop()
        self._chores = [loop.create_task(self._save_changes()), loop.create_task(self._tidy())]

    async def drain_replies(self, grace: float) -> None:
        """Let answers in the making end within `grace` seconds; the questions of the others are asked again later."""
        deadline = self._clock() + grace
        while (left := deadline - self._clock()) > 0:
            tasks = [task for actor in self._actors.values() for task in actor.tasks]
            if not tasks:
                break
            await asyncio.wait(tasks, timeout=left, return_when=asyncio.ALL_COMPLETED)
        for actor in self._actors.values():
            actor.post(Suspended())

    async def close(self) -> None:
        """Store everything and end every session in this process."""
        for chore in self._chores:
            chore.cancel()
        if self._chores:
            await asyncio.wait(self._chores)
        for actor in self._actors.values():
            actor.post(Suspended())
        await asyncio.gather(*(actor.close() for actor in self._actors.values()))
        await self._save(dict(self._unsaved))
        if self._ending:
            await asyncio.wait(self._ending)
        self._actors.clear()

    # --- connections ---

    def link(self, number: int) -> Link | None:
        """See `Surroundings.link`."""
        return self._links.get(number)

    def add_link(self, number: int, link: Link) -> None:
        """From now on sessions reach this connection."""
        self._links[number] = link

    def remove_link(self, number: int) -> None:
        """The connection is gone."""
        self._links.pop(number, None)

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._links)

    # --- sessions ---

    def __len__(self) -> int:
        return len(self._actors)

    def actors(self, tenant: str) -> list[Actor]:
        """The sessions in memory that belong to a key."""
        return [actor for key, actor in self._actors.items() if key.tenant == tenant]

    async def find(self, key: SessionKey) -> Actor:
        """The session: in memory, from the store, or new. Raises NoSession where there is no room for it, or where
        the store does not answer: to begin anew would overwrite what is stored.

        It is not attached yet: post an event for it before the next await, or it may be gone again.
        """
        while True:
            actor = self._actors.get(key)
            if actor is not None:
                self._idle.pop(key, None)
                return actor
            loading = self._loading.get(key)
            if loading is None:
                break
            await asyncio.wait([loading])
        self._loading[key] = loading = asyncio.get_running_loop().create_future()
        try:
            actor = await self._load(key)
            self._make_room()
            self._actors[key] = actor
            return actor
        finally:
            del self._loading[key]
            loading.cancel()

    async def _load(self, key: SessionKey) -> Actor:
        while key in self._deleting:
            await asyncio.wait(self._ending)
        try:
            snapshot = await self.storage.load(key)
        except Exception as error:  # a store may fail in its own ways
            self.metrics.dropped.labels("session_unreadable").inc()
            why = type(error).__name__
            self.log.write("ERROR", key.client_id, "The stored session cannot be read", error=why)
            raise NoSession("The session cannot be read now.") from None
        session = None
        if snapshot is not None:
            session = restored(snapshot, self.rules, self._clock(), self._wall())
        if session is None:
            self.log.write(
                "SESSION",
                key.client_id,
                "NEW SESSION: Creating session",
                total_sessions_before=len(self._actors),
            )
            session = Session(key.client_id, uuid.uuid4().hex[:12], self.rules)
        else:
            self.log.write(
                "SESSION", key.client_id, "RESUMED: Session from the store", history=len(session.history)
            )
        return Actor(key, session, self, self._clock)

    def _make_room(self) -> None:
        while len(self._actors) >= self._limit:
            key = next((key for key in self._idle if self._can_go(key)), None)
            if key is None:
                self.metrics.dropped.labels("session_refused").inc()
                raise NoSession("Too many sessions.")
            if not self.storage.lasting:
                self.metrics.dropped.labels("session").inc()
                self.log.write("WARNING", key.client_id, "Too many sessions: the longest disconnected goes")
            del self._idle[key]
            self._end(self._actors.pop(key), forget=False)

    def _can_go(self, key: SessionKey) -> bool:
        """Whether nothing is lost that the store could keep."""
        return not self._actors[key].tasks and key not in self._unsaved and key not in self._saving

    async def delete(self, key: SessionKey) -> bool:
        """End a session and forget all of it; whether there was one."""
        actor = self._actors.pop(key, None)
        stored = actor is not None or await self._stored(key)
        if actor is not None:
            for link in list(self._links.values()):
                if (link.client_id, link.caller.tenant) == (key.client_id, key.tenant):
                    link.close(CLOSED_BY_ADMIN, "The session was deleted.")
            self._idle.pop(key, None)
            self._unsaved.pop(key, None)
            await actor.close()
        await self._saved(key)
        await self.storage.delete(key)
        if stored:
            self.log.write("SESSION", key.client_id, "DELETED: session forgotten")
        return stored

    async def _stored(self, key: SessionKey) -> bool:
        return await self.storage.load(key) is not None

    def changed(self, actor: Actor) -> None:
        """See `Surroundings.changed`."""
        if actor.session.link is None:
            self._idle[actor.key] = None
        else:
            self._idle.pop(actor.key, None)
        if self.storage.lasting:
            self._unsaved[actor.key] = actor
            self._changed.set()

    def ended(self, actor: Actor) -> None:
        """See `Surroundings.ended`."""
        self._actors.pop(actor.key, None)
        self._idle.pop(actor.key, None)
        self._unsaved.pop(actor.key, None)
        self._end(actor, forget=True)

    def _end(self, actor: Actor, *, forget: bool) -> None:
        async def end() -> None:
            try:
                await actor.close()
                if forget:
                    await self._saved(actor.key)
                    await self.storage.delete(actor.key)
            except Exception as error:  # the store drops it by itself when its time is over
                self.log.write("ERROR", actor.key.client_id, "A session stays stored", trace=error)
            finally:
                self._deleting.discard(actor.key)

        if forget:
            self._deleting.add(actor.key)
        task = asyncio.get_running_loop().create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    # --- storing ---

    async def _save_changes(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(SAVE_DELAY)
            self._changed.clear()
            batch, self._unsaved = self._unsaved, {}
            if not await self._save(batch):
                await asyncio.sleep(RETRY_DELAY)

    async def _save(self, batch: dict[SessionKey, Actor]) -> bool:
        """Store these sessions as they are now; whether all are. Others wait for the next time."""
        waiting = list(batch.values())
        failed: list[Exception] = []

        async def save_some() -> None:
            while waiting:
                actor = waiting.pop()
                if self._actors.get(actor.key) is not actor:
                    continue  # its time is over
                try:
                    await self._save_one(actor)
                    self.metrics.saves.labels("ok").inc()
                except Exception as error:  # a store may fail in its own ways
                    failed.append(error)
                    self.metrics.saves.labels("failed").inc()
                    if not actor.closed:
                        self._unsaved.setdefault(actor.key, actor)

        await asyncio.gather(*(save_some() for _ in range(min(SAVES_AT_ONCE, len(waiting)))))
        if failed:
            self._changed.set()
            self.log.write(
                "ERROR", "", "Sessions cannot be stored", sessions=len(failed), error=type(failed[0]).__name__
            )
        return not failed

    async def _save_one(self, actor: Actor) -> None:
        session = actor.session
        snapshot = taken(session, self._clock(), self._wall())
        expires = session.expires_at
        ttl = self.rules.ttl if expires is None else expires - self._clock()
        if ttl <= 0:
            return
        self._saving[actor.key] = saving = asyncio.get_running_loop().create_future()
        try:
            await self.storage.save(actor.key, snapshot, ttl)
        finally:
            del self._saving[actor.key]
            saving.cancel()

    async def _saved(self, key: SessionKey) -> None:
        """Wait until the session is not being stored any more."""
        while (saving := self._saving.get(key)) is not None:
            await asyncio.wait([saving])

    async def _tidy(self) -> None:
        while True:
            try:
                await self.storage.tidy()
            except Exception as error:  # as above
                self.log.write("ERROR", "", "Old sessions cannot be tidied away", trace=error)
            await asyncio.sleep(TIDY_EVERY)
