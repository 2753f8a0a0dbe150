"""Sessions that clients resume, and the common selection, in a store of Litestar: memory, files or Redis."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from lollms_kernel.errors import ConfigError, InvalidRequest, Unavailable

from .conversation import Turn
from .selection import Selection
from .settings import SocketioSettings

logger = logging.getLogger(__name__)

SHORTEST_ID, LONGEST_ID = 16, 200
FOLDER = "socketio_sessions"
SELECTION_KEY = "selection"
SELECTION_TTL = 365 * 86400
REDIS_TIMEOUT = 5.0


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives a connection. `owner` is the socket that uses it now, "" for none."""

    turns: tuple[Turn, ...] = ()
    selection: Selection = Selection()
    owner: str = ""


class SessionStore:
    """Keeps sessions for `session_ttl` seconds; failures are Unavailable."""

    def __init__(self, settings: SocketioSettings, store: Any, failures: tuple[type[Exception], ...]) -> None:
        self._settings = settings
        self._store = store
        self._failures = failures
        self._kept: OrderedDict[str, None] | None = None
        if settings.where_sessions_are != "redis":
            self._kept = OrderedDict()

    async def load(self, key: str) -> SessionRecord | None:
        """What was saved under the key, if it is still there and readable."""
        async with self._safely():
            raw = await self._store.get(key, renew_for=self._settings.session_ttl)
        if raw is None:
            return None
        try:
            return msgspec.msgpack.decode(raw, type=SessionRecord)
        except msgspec.MsgspecError as error:
            logger.warning("a stored Socket.IO session cannot be read and is left out: %s", error)
            return None

    async def save(self, key: str, record: SessionRecord) -> None:
        """Keep it."""
        async with self._safely():
            await self._store.set(key, msgspec.msgpack.encode(record), expires_in=self._settings.session_ttl)
            await self._make_room(key)

    async def load_selection(self) -> Selection | None:
        """See `selection.SelectionStore`."""
        async with self._safely():
            raw = await self._store.get(SELECTION_KEY)
        return None if raw is None else msgspec.msgpack.decode(raw, type=Selection)

    async def save_selection(self, selection: Selection) -> None:
        """See `selection.SelectionStore`."""
        async with self._safely():
            await self._store.set(SELECTION_KEY, msgspec.msgpack.encode(selection), expires_in=SELECTION_TTL)

    async def sweep(self) -> None:
        """Delete what has expired, again and again; Redis does that by itself."""
        if self._kept is None:
            return
        while True:
            await asyncio.sleep(max(1.0, self._settings.session_ttl / 4))
            try:
                await self._store.delete_expired()
            except OSError as error:
                logger.warning("expired Socket.IO sessions cannot be deleted: %s", error)

    async def _make_room(self, key: str) -> None:
        if self._kept is None:
            return
        self._kept[key] = None
        self._kept.move_to_end(key)
        while len(self._kept) > self._settings.max_sessions:
            oldest, _ = self._kept.popitem(last=False)
            await self._store.delete(oldest)

    @asynccontextmanager
    async def _safely(self) -> AsyncIterator[None]:
        try:
            yield
        except self._failures as error:
            raise Unavailable(
                f"The store of sessions does not answer: {type(error).__name__}.",
                hint="Try again later; the operator finds it as transports.socketio.store.",
            ) from error


def session_key(tenant: str, session: str) -> str:
    """The key in the store of a client's session; other tenants cannot reach it even if they know its id."""
    if not SHORTEST_ID <= len(session) <= LONGEST_ID or not session.isprintable():
        raise InvalidRequest(
            "The `session` of the auth payload is not usable.",
            hint=f"Send {SHORTEST_ID} to {LONGEST_ID} printable characters that nobody can guess, for example a UUID.",
        )
    return hashlib.sha256(f"{tenant}\0{session}".encode(errors="replace")).hexdigest()


@asynccontextmanager
async def open_store(settings: SocketioSettings, root: Path) -> AsyncIterator[SessionStore]:
    """The store that the settings name. Raises ConfigError with the cure where it cannot be."""
    where = settings.where_sessions_are
    if where == "redis":
        async with _redis_store(settings) as store:
            yield store
        return
    if where == "file":
        from litestar.stores.file import FileStore

        folder = root / FOLDER
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{folder} cannot be made: {error.strerror}.",
                hint="Make it a folder that the server may write, or set transports.socketio.store to memory.",
            ) from error
        store = SessionStore(settings, FileStore(folder), (OSError,))
    else:
        from litestar.stores.memory import MemoryStore

        store = SessionStore(settings, MemoryStore(), (OSError,))
    sweeping = asyncio.create_task(store.sweep())
    try:
        yield store
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)


@asynccontextmanager
async def _redis_store(settings: SocketioSettings) -> AsyncIterator[SessionStore]:
    from litestar.stores.redis import RedisStore
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    assert settings.redis_url is not None
    client = Redis.from_url(
        settings.redis_url,
        password=settings.redis_password,
        socket_timeout=REDIS_TIMEOUT,
        socket_connect_timeout=REDIS_TIMEOUT,
    )
    try:
        yield SessionStore(settings, RedisStore(client, settings.redis_channel), (RedisError, OSError))
    finally:
        await client.aclose()
