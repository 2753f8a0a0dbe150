"""What is known of every download, in SQLite: several processes may use the same file at once.

A process that is killed leaves a row
`downloading` behind; whoever takes the lock of its part file goes on with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Literal, get_args

import msgspec

from .database import Database

Status = Literal["queued", "downloading", "paused", "complete", "error", "cancelled", "unknown"]
UNDER_WAY: tuple[Status, ...] = ("queued", "downloading")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS downloads (
  repo TEXT NOT NULL, file TEXT NOT NULL, status TEXT NOT NULL,
  total INTEGER NOT NULL DEFAULT 0, downloaded INTEGER NOT NULL DEFAULT 0, speed REAL NOT NULL DEFAULT 0,
  error TEXT NOT NULL DEFAULT '', created INTEGER NOT NULL, updated INTEGER NOT NULL,
  revision TEXT NOT NULL DEFAULT '', sha256 TEXT NOT NULL DEFAULT '', git_sha1 TEXT NOT NULL DEFAULT '',
  etag TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (repo, file)
);
CREATE TABLE IF NOT EXISTS said (key TEXT PRIMARY KEY, at REAL NOT NULL, value BLOB NOT NULL);
"""


class Download(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a hub and how far it is. `created` and `updated` are seconds since the epoch."""

    repo: str
    file: str
    status: Status
    total: int = 0
    """Bytes; 0: not known yet."""
    downloaded: int = 0
    speed: float = 0.0
    """Bytes per second since this transfer began."""
    error: str = ""
    created: int = 0
    updated: int = 0
    revision: str = ""
    """The commit that it is taken from, "" for the newest."""
    sha256: str = ""
    git_sha1: str = ""
    etag: str = ""
    """Of the server that gave the bytes so far."""

    @property
    def key(self) -> tuple[str, str]:
        """What identifies it."""
        return self.repo, self.file

    @property
    def name(self) -> str:
        """`owner/repo/file`, the name of the model once it is here."""
        return f"{self.repo}/{self.file}"

    @property
    def progress(self) -> float:
        """0 to 100; -1 while the size is not known."""
        if self.total <= 0:
            return 100.0 if self.status == "complete" else -1.0
        return min(100.0, 100.0 * self.downloaded / self.total)

    @property
    def under_way(self) -> bool:
        """Whether something still happens by itself."""
        return self.status in UNDER_WAY


_FIELDS = tuple(Download.__struct_fields__)
_SELECT = f"SELECT {', '.join(_FIELDS)} FROM downloads"  # noqa: S608 - names of this file


class Stopped(Exception):
    """Somebody has paused, cancelled or removed a download that is worked on."""


class Records:
    """The rows of one folder of downloads."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(file, _SCHEMA)
        self._clock = clock

    async def close(self) -> None:
        """Close the file."""
        await self._database.close()

    # --- reading ---

    async def all(self, repo: str | None = None, file: str | None = None) -> list[Download]:
        """Rows, the oldest first; of one repository or file name only where these are given."""
        wanted = {"repo": repo, "file": file}
        terms = {name: value for name, value in wanted.items() if value is not None}
        where = f" WHERE {' AND '.join(f'{name} = ?' for name in terms)}" if terms else ""

        def work(connection: Connection) -> list[Download]:
            rows = connection.execute(f"{_SELECT}{where} ORDER BY created, rowid", [*terms.values()])
            return [_download(row) for row in rows]

        return await self._database.read(work, [])

    async def get(self, repo: str, file: str) -> Download | None:
        """One row, None if there is none."""
        return next(iter(await self.all(repo, file)), None)

    # --- writing ---

    async def enqueue(
        self, repo: str, file: str, *, total: int, revision: str, sha256: str, git_sha1: str
    ) -> tuple[Download, bool]:
        """The row, queued, and True; or the row as it is and False if it is under way or complete."""

        def work(connection: Connection) -> tuple[Download, bool]:
            now = int(self._clock())
            there = _row(connection, repo, file)
            if there is not None and there.status in (*UNDER_WAY, "complete"):
                return there, False
            connection.execute(
                "INSERT INTO downloads (repo, file, status, created, updated, total, revision, sha256, git_sha1)"
                " VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (repo, file) DO UPDATE SET status = 'queued', updated = excluded.updated, error = '',"
                " downloaded = 0, speed = 0, total = excluded.total, revision = excluded.revision,"
                " sha256 = excluded.sha256, git_sha1 = excluded.git_sha1",
                (repo, file, now, now, total, revision, sha256, git_sha1),
            )
            found = _row(connection, repo, file)
            assert found is not None, "it was written a moment ago"
            return found, True

        return await self._database.write(work)

    async def change(
        self, repo: str, file: str, among: Sequence[Status] | None = None, **values: Any
    ) -> Download | None:
        """Set columns of a row whose status is one of `among` (None: any); the row, or None if there is no such."""
        columns = {**values, "updated": int(self._clock())}
        assignments = ", ".join(f"{name} = ?" for name in columns)
        allowed = "" if among is None else f" AND status IN ({', '.join('?' * len(among))})"

        def work(connection: Connection) -> Download | None:
            done = connection.execute(
                f"UPDATE downloads SET {assignments} WHERE repo = ? AND file = ?{allowed}",  # noqa: S608
                [*columns.values(), repo, file, *(among or ())],
            )
            return _row(connection, repo, file) if done.rowcount else None

        return await self._database.change(work, None)

    async def delete(self, repo: str, file: str) -> Download | None:
        """Take a row away; as it was, or None if there was none."""

        def work(connection: Connection) -> Download | None:
            there = _row(connection, repo, file)
            connection.execute("DELETE FROM downloads WHERE repo = ? AND file = ?", (repo, file))
            return there

        return await self._database.change(work, None)

    async def restore(self, elsewhere: Iterable[tuple[str, str]]) -> None:
        """What a start does: what was interrupted or failed is queued again from nothing, what was cancelled goes.

        Rows that another process works on (`elsewhere`) stay as they are.
        """
        spared = set(elsewhere)

        def work(connection: Connection) -> None:
            for row in connection.execute(_SELECT).fetchall():
                download = _download(row)
                if download.key in spared:
                    continue
                if download.status in ("downloading", "error", "paused"):
                    connection.execute(
                        "UPDATE downloads SET status = 'queued', downloaded = 0, speed = 0, error = '', updated = ?"
                        " WHERE repo = ? AND file = ?",
                        (int(self._clock()), *download.key),
                    )
                elif download.status in ("cancelled", "unknown"):
                    connection.execute("DELETE FROM downloads WHERE repo = ? AND file = ?", download.key)

        await self._database.change(work, None)

    # --- what the hub said ---

    async def remember(self, key: str, value: bytes) -> None:
        """Keep an answer of the hub for when it cannot be reached."""
        row = (key, self._clock(), value)

        def work(connection: Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO said (key, at, value) VALUES (?, ?, ?)", row)

        await self._database.write(work)

    async def remembered(self, key: str) -> tuple[float, bytes] | None:
        """How many seconds ago the hub said it, and what."""

        def work(connection: Connection) -> tuple[float, bytes] | None:
            row = connection.execute("SELECT at, value FROM said WHERE key = ?", (key,)).fetchone()
            return None if row is None else (max(0.0, self._clock() - row[0]), row[1])

        return await self._database.read(work, None)


def _download(row: Sequence[Any]) -> Download:
    values = dict(zip(_FIELDS, row, strict=True))
    if values["status"] not in get_args(Status):
        values["status"] = "unknown"
    return Download(**values)


def _row(connection: Connection, repo: str, file: str) -> Download | None:
    row = connection.execute(f"{_SELECT} WHERE repo = ? AND file = ?", (repo, file)).fetchone()
    return None if row is None else _download(row)
