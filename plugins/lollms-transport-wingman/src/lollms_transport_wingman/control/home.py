"""Wingman's folder: the database of its models, and the files that tell how the last run ended.

Nothing is written there before somebody starts a model. One server at a time owns it; another one with the same folder
keeps its models in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection

import msgspec

from lollms_kernel.downloads.database import Database

from .objects import WingmanItem

try:
    import fcntl
except ImportError:  # no locks on this system: two servers with one folder are the operator's affair
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
  alias TEXT PRIMARY KEY, created INTEGER NOT NULL, value BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS app (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

RUNNING, STOPPED = "running", "stopped"


class Home:
    """The folder `home` of the settings, as far as it belongs to servers with the same folder of models."""

    def __init__(self, folder: Path, models: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._name = f"lollms-{hashlib.sha256(os.fsencode(models)).hexdigest()[:12]}.db"
        self.exit_file = folder / "wingman.exit"
        """Whoever makes this file lets the server stop."""
        self.die_file = folder / "wingman.die"
        """And this one at once."""
        self._clock = clock
        self._items: dict[str, WingmanItem] = {}
        self._database: Database | None = None
        self._lock: int | None = None
        self._shared = False

    @property
    def items(self) -> list[WingmanItem]:
        """Every item, the oldest first."""
        return list(self._items.values())

    @property
    def owned(self) -> bool:
        """Whether what is said here is kept on the disk."""
        return self._database is not None

    def get(self, alias: str) -> WingmanItem | None:
        """One item."""
        return self._items.get(alias)

    async def open(self) -> tuple[bool, bool, bool]:
        """Read what is there. Whether the last run did not end cleanly, was killed by file, was ended by file."""
        exists = await asyncio.to_thread(self._file.exists)
        if not exists or not await self._own():
            return False, False, False
        assert self._database is not None, "it was opened a moment ago"
        state = await self._database.read(_state, STOPPED)
        nothing: list[WingmanItem] = []
        self._items = {item.alias: item for item in await self._database.read(_items, nothing)}
        died, left = await asyncio.to_thread(lambda: (self._take(self.die_file), self._take(self.exit_file)))
        await self._note(RUNNING)
        return state == RUNNING, died, left

    async def close(self) -> None:
        """Note that this run ended cleanly, and let go of the folder."""
        if self._database is not None:
            await self._note(STOPPED)
            await self._database.close()
            self._database = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def put(self, item: WingmanItem, **changes: object) -> WingmanItem:
        """Keep an item with these changes; `updated` is now."""
        now = int(self._clock())
        kept = msgspec.structs.replace(item, **changes, updated=now, created=item.created or now)
        self._items[kept.alias] = kept
        owned = self.owned
        if await self._own():
            if not owned:
                await self._note(RUNNING)
            row = (kept.alias, kept.created, msgspec.json.encode(kept))
            await self._write("INSERT OR REPLACE INTO items (alias, created, value) VALUES (?, ?, ?)", row)
        return kept

    async def delete(self, alias: str) -> None:
        """Forget an item."""
        if self._items.pop(alias, None) is not None and self._database is not None:
            await self._write("DELETE FROM items WHERE alias = ?", (alias,))

    def asked_to_stop(self) -> tuple[bool, bool]:
        """Whether somebody made the exit file, and whether it is the one that means at once. Blocks for a moment."""
        if not self.owned:
            return False, False
        died = self.die_file.exists()
        return died or self.exit_file.exists(), died

    # --- the disk ---

    @property
    def _file(self) -> Path:
        return self.folder / "data" / self._name

    @staticmethod
    def _take(path: Path) -> bool:
        there = path.exists()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return there

    async def _own(self) -> bool:
        """Whether the folder is ours; takes it if it is free."""
        if self._database is not None or self._shared:
            return self._database is not None
        try:
            self._lock = await asyncio.to_thread(self._locked)
        except OSError as error:
            logger.warning("Wingman's folder %s cannot be used: %s", self.folder, error.strerror or error)
            self._shared = True
            return False
        if self._lock is None:
            logger.warning(
                "Another server uses Wingman's folder %s; what is started here is not remembered. Set"
                " transports.wingman.home to another one.",
                self.folder,
            )
            self._shared = True
            return False
        self._database = Database(self._file, _SCHEMA)
        return True

    def _locked(self) -> int | None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return None
        return handle

    async def _note(self, state: str) -> None:
        await self._write("INSERT OR REPLACE INTO app (name, value) VALUES ('server', ?)", (state,))

    async def _write(self, statement: str, values: tuple[object, ...]) -> None:
        assert self._database is not None, "only its owner writes"

        def work(connection: Connection) -> None:
            connection.execute(statement, values)

        await self._database.write(work)


def _state(connection: Connection) -> str:
    row = connection.execute("SELECT value FROM app WHERE name = 'server'").fetchone()
    return STOPPED if row is None else str(row[0])


def _items(connection: Connection) -> list[WingmanItem]:
    found = []
    for (value,) in connection.execute("SELECT value FROM items ORDER BY created, rowid"):
        try:
            found.append(msgspec.json.decode(value, type=WingmanItem))
        except msgspec.DecodeError:
            logger.warning("An entry of Wingman's database cannot be read; it is left out.")
    return found
