"""Keeps the records of large collections between starts: parsing thousands of YAML files takes seconds.

A record counts only while the mark of its files is the same. The file lies in the user's cache folder and not among
the personalities, so that a downloaded collection cannot bring one along.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from .records import Record


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """The records of one root."""

    version: int
    root: str
    records: dict[str, Record]


VERSION = 1
"""Of what records mean: another one makes caches worthless."""

_decoder = msgspec.msgpack.Decoder(Cache)
_encoder = msgspec.msgpack.Encoder()


def read_cache(file: Path, root: str) -> dict[str, Record]:
    """The kept records of `root`; none where there are none that can be used."""
    try:
        cache = _decoder.decode(file.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return cache.records if (cache.version, cache.root) == (VERSION, root) else {}


def write_cache(file: Path, root: str, records: dict[str, Record]) -> None:
    """Keep the records. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = file.with_suffix(f".{os.getpid()}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(_encoder.encode(Cache(version=VERSION, root=root, records=records)))
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)


def cache_file(root: Path, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where the records of `root` are kept; None where the user has no home."""
    base = environ.get("XDG_CACHE_HOME") or (
        os.path.join(environ["HOME"], ".cache") if environ.get("HOME") else ""
    )
    if not os.path.isabs(base):
        return None
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return Path(base) / "lollms" / f"personalities-{name}.msgpack"
