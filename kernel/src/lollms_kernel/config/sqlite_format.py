"""SQLite files into plain values and back.

Layout: one table `config(key TEXT PRIMARY KEY, value TEXT NOT NULL)`. A key is the path of a value as the other
formats spell it (`server.port`, `bindings_map."a.b"`), its value is JSON. Sections are not stored, unless empty; lists
are one value. The row `__version__` is the version of the schema. The files of lollms_server's ConfigGuard have
the same table.

A file is read as bytes and opened in memory: SQLite never writes beside it, and what it may hold besides the table
(views, triggers, other tables) is never run.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from ..errors import ConfigError
from .describe import shown
from .files import MAX_BYTES
from .json_format import load_json
from .places import parse_place, put, spell, value_at
from .plain import HINT, bounded

TABLE = "CREATE TABLE config (key TEXT PRIMARY KEY, value TEXT NOT NULL)"

MAGIC = b"SQLite format 3\x00"
_VERSIONS = slice(18, 20)
"""Bytes of the header that say how the file is written: 2 is a write-ahead log, which only files on disk can have."""

_OLD_NAMES = {"__configguard_version__": "__version__"}
_OLD_SCHEMA = "__configguard_schema__"
_STEPS = 1_000_000
"""Instructions of SQLite's machine that reading may take: a configuration needs a few thousand."""


def parse_sqlite(data: bytes, where: str) -> Any:
    """The values of an SQLite file, None if it is empty. Raises ConfigError."""
    if not data:
        return None
    if not data.startswith(MAGIC):
        raise ConfigError(f"{where} is no SQLite file.", hint="Put the right file there.")
    try:
        rows = _rows(data, where)
    except (sqlite3.Error, UnicodeDecodeError):  # texts of SQLite may quote the file
        raise ConfigError(
            f"{where} is a broken SQLite file, or not one of this server.",
            hint="It needs a table `config` with the text columns `key` and `value`.",
        ) from None
    values: dict[str, Any] = {}
    for key, text in rows:
        _put(values, key, text, where)
    return bounded(values, where)


def write_sqlite(values: dict[str, Any]) -> bytes:
    """The bytes of a new SQLite file with these values."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(TABLE)
        database.executemany("INSERT INTO config VALUES (?, ?)", _flat(values))
        database.commit()
        return database.serialize()


def _rows(data: bytes, where: str) -> list[tuple[str, str]]:
    header = bytearray(data)
    header[_VERSIONS] = b"\x01\x01"
    with closing(sqlite3.connect(":memory:")) as database:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES)
        database.deserialize(bytes(header))
        database.set_progress_handler(lambda: 1, _STEPS)
        for pragma in ("query_only = ON", "trusted_schema = OFF", "cell_size_check = ON"):
            database.execute(f"PRAGMA {pragma}")
        kinds = database.execute("SELECT type, sql FROM sqlite_master WHERE name = 'config'").fetchall()
        if (
            len(kinds) != 1
            or kinds[0][0] != "table"
            or not str(kinds[0][1]).upper().startswith("CREATE TABLE")
        ):
            raise ConfigError(f"{where} has no table `config`.", hint="Put the right file there.")
        database.text_factory = bytes
        found = database.execute("SELECT key, value FROM config").fetchall()
    return [(_text(key), _text(value)) for key, value in found]


def _text(cell: Any) -> str:
    if not isinstance(cell, bytes):
        raise UnicodeDecodeError("utf-8", b"", 0, 0, "not text")
    return cell.decode()


def _put(values: dict[str, Any], key: str, text: str, where: str) -> None:
    key = _OLD_NAMES.get(key, key)
    if key == _OLD_SCHEMA:
        return
    here = f"{where}, row {shown(key)}"
    try:
        place = parse_place(key)
        value = load_json(text, here)
        if not _is_there(values, place):
            put(values, place, value)
        elif value != {}:  # an empty section needs no row of its own
            raise ConfigError(f"{here}: the key is there twice.", hint=HINT)
    except ConfigError as error:
        message = error.message if error.message.startswith(where) else f"{here}: {error.message}"
        raise ConfigError(message, hint=HINT) from None


def _is_there(values: dict[str, Any], place: tuple[str | int, ...]) -> bool:
    try:
        value_at(values, place)
    except KeyError:
        return False
    return True


def _flat(values: dict[str, Any], place: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    rows = []
    for key, value in values.items():
        here = (*place, key)
        if isinstance(value, dict) and value:
            rows += _flat(value, here)
        else:
            rows.append((spell(here), _json(value)))
    return rows


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ConfigError(f"SQLite cannot hold these values: {error}.", hint="Use YAML or TOML.") from None
