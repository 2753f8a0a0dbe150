"""Sessions outside of memory: files in a folder, or Redis, through Litestar's stores."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from litestar.stores.base import StorageObject, Store
from litestar.stores.file import FileStore

from lollms_kernel.config.concealment import remember
from lollms_kernel.errors import ConfigError

from .settings import WsChatSettings
from .snapshot import Snapshot, decoded, encoded

logger = logging.getLogger(__name__)

REDIS_NAMESPACE = "lollms-ws-chat"
REDIS_TIMEOUT = 5.0
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_numbers = itertools.count()


class SessionKey(msgspec.Struct, frozen=True):
    """Whose session it is: sessions of different API keys never meet, whatever their client ids are."""

    tenant: str
    client_id: str

    def __str__(self) -> str:
        return f"{self.tenant}:{self.client_id}"


class Storage(ABC):
    """Where snapshots of sessions are kept. Errors of the medium are OSErrors or the medium's own."""

    lasting = True
    """Whether sessions are still there after a restart."""

    @abstractmethod
    async def load(self, key: SessionKey) -> Snapshot | None:
        """The snapshot, None if there is none or it cannot be read."""

    @abstractmethod
    async def save(self, key: SessionKey, snapshot: Snapshot, ttl: float) -> None:
        """Keep it for `ttl` seconds."""

    @abstractmethod
    async def delete(self, key: SessionKey) -> None:
        """Forget it."""

    async def tidy(self) -> None:  # noqa: B027
        """Throw away what is out of date."""


class NoStorage(Storage):
    """Keeps nothing: sessions live and end in memory."""

    lasting = False

    async def load(self, key: SessionKey) -> Snapshot | None:
        """See `Storage.load`."""
        return None

    async def save(self, key: SessionKey, snapshot: Snapshot, ttl: float) -> None:
        """See `Storage.save`."""

    async def delete(self, key: SessionKey) -> None:
        """See `Storage.delete`."""


class StoreStorage(Storage):
    """Keeps snapshots in one of Litestar's stores."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def load(self, key: SessionKey) -> Snapshot | None:
        """See `Storage.load`."""
        try:
            data = await self._store.get(str(key))
            return None if data is None else decoded(data)
        except msgspec.DecodeError as error:
            logger.error("A stored session cannot be read and is given up: %s", error)
            return None

    async def save(self, key: SessionKey, snapshot: Snapshot, ttl: float) -> None:
        """See `Storage.save`."""
        await self._store.set(str(key), encoded(snapshot), expires_in=max(1, math.ceil(ttl)))

    async def delete(self, key: SessionKey) -> None:
        """See `Storage.delete`."""
        await self._store.delete(str(key))

    async def tidy(self) -> None:
        """See `Storage.tidy`; Redis does it by itself."""
        if isinstance(self._store, FileStore):
            await self._store.delete_expired()


class SessionFiles(FileStore):
    """Litestar's file store for conversations: in a folder of the user's own, and no failed write goes unnoticed."""

    def _write_sync(self, target_file: Any, storage_obj: StorageObject) -> None:
        target = Path(target_file)
        part = target.with_name(f".{target.name}-{os.getpid()}-{next(_numbers)}.part")
        try:
            file = os.open(part, _NEW_FILE, 0o600)
        except FileNotFoundError:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(part, _NEW_FILE, 0o600)
        try:
            with os.fdopen(file, "wb") as opened_part:
                opened_part.write(storage_obj.to_bytes())
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    async def set(self, key: str, value: str | bytes, expires_in: Any = None) -> None:
        """See `FileStore.set`; makes the folder with all that leads there."""
        data = value.encode() if isinstance(value, str) else value
        await self._write(self._path_from_key(key), StorageObject.new(data=data, expires_in=expires_in))

    async def delete_expired(self) -> None:
        """See `FileStore.delete_expired`; leaves alone what is no entry, such as one being written."""
        folder = Path(self.path)
        if not folder.is_dir():  # noqa: ASYNC240 - one look at the local disk
            return
        async for file in self.path.iterdir():
            if file.name.startswith("."):
                continue
            with contextlib.suppress(msgspec.DecodeError):
                entry = await self._load_from_path(file)
                if entry is not None and entry.expired:
                    await file.unlink(missing_ok=True)


@asynccontextmanager
async def opened(settings: WsChatSettings, root: Path) -> AsyncIterator[Storage]:
    """The storage that the settings name. Raises ConfigError with the cure where it cannot work."""
    if settings.store == "memory":
        yield NoStorage()
    elif settings.store == "file":
        yield StoreStorage(SessionFiles(_folder(settings, root)))
    else:
        async with _redis(settings.store) as store:
            yield StoreStorage(store)


def _folder(settings: WsChatSettings, root: Path) -> Path:
    return root / Path(settings.store_folder).expanduser()


@asynccontextmanager
async def _redis(url: str) -> AsyncIterator[Store]:
    try:
        from litestar.stores.redis import RedisStore
        from redis.asyncio import Redis
        from redis.exceptions import RedisError
    except ModuleNotFoundError:
        raise ConfigError(
            "transports.ws_chat.store is a Redis address, and the library `redis` is not installed.",
            hint="pip install 'lollms-transport-ws-chat[redis]'",
        ) from None
    password = urlsplit(url).password
    remember([password] if password else [])
    client = Redis.from_url(url, socket_timeout=REDIS_TIMEOUT, socket_connect_timeout=REDIS_TIMEOUT)
    try:
        try:
            await client.ping()
        except (RedisError, OSError) as error:
            raise ConfigError(
                f"The Redis server of transports.ws_chat.store does not answer: {type(error).__name__}.",
                hint="Start it, correct the address, or set `store: file`.",
            ) from None
        yield RedisStore(client, namespace=REDIS_NAMESPACE)
    finally:
        await client.aclose()
