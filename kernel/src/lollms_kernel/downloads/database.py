"""An SQLite file that several processes may use, worked on in one thread of its own and never on the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..errors import Unavailable

T = TypeVar("T")

BUSY_TIMEOUT = 30.0
"""Seconds that another process may keep it locked."""


class Database:
    """Opened, and made if need be, by the first piece of work. Write-ahead: a killed process damages nothing."""

    def __init__(self, file: Path, schema: str) -> None:
        self.file = file
        self._schema = schema
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=file.stem)
        self._connection: sqlite3.Connection | None = None

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` gives, done in one transaction; all of it or nothing."""

        def transaction() -> T:
            with _transaction(self._opened()) as connection:
                return work(connection)

        return await self._run(transaction)

    async def read(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What `work` gives, or `otherwise` where there is no file yet; reading makes none."""

        def reading() -> T:
            if self._connection is None and not self.file.exists():
                return otherwise
            return work(self._opened())

        return await self._run(reading)

    async def change(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """As `write`, but where there is no file yet there is nothing to change, and `otherwise` is the answer."""

        def transaction(connection: sqlite3.Connection) -> T:
            with _transaction(connection):
                return work(connection)

        return await self.read(transaction, otherwise)

    async def close(self) -> None:
        """Close the file."""

        def closing() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        await self._run(closing)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        """What `work` gives. Raises Unavailable where the file cannot be used."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(
                f"The database {self.file} cannot be used: {error}.",
                hint="Is the disk full or not writable? A damaged file can be deleted; only its list is lost.",
            ) from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.file, timeout=BUSY_TIMEOUT, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(self._schema)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
