"""Files replaced as a whole: whoever reads sees the old content or the new one, also after a crash or power cut.

A new content is written beside the file, flushed to the disk and renamed over it; the previous content stays as
`NAME.bak`. A lock on the folder keeps two writers apart, and a file that is not as it was read is never overwritten.
"""

from __future__ import annotations

import contextlib
import glob
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import mkstemp

import msgspec

from ..errors import ConfigError
from .files import read_bytes

try:
    import fcntl
except ModuleNotFoundError:  # not a POSIX system: the comparison of contents has to do alone
    fcntl = None  # type: ignore[assignment]

LOCK_TIMEOUT = 10.0
NEW_FILE_MODE = 0o600
"""Configuration may hold secrets, so only its owner reads a file that we create."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The new content of one file; `before` is what it held when it was read, None if it was not there."""

    path: Path
    data: bytes
    before: bytes | None
    backup: bytes | None = None
    """What to keep as the previous version, if that is not `before`."""


def replace_files(changes: Sequence[Change]) -> None:
    """Write all files, or none: every new content is on the disk before the first one is renamed into place.

    A file may have several changes, which follow one another; `before` of the first one is what has to be there.
    Raises ConfigError, with nothing changed, if a file cannot be written or was changed since it was read.
    """
    changes = [
        msgspec.structs.replace(change, path=Path(os.path.realpath(change.path))) for change in changes
    ]  # a link stays a link
    first = {change.path: change for change in reversed(changes)}
    try:
        for folder in {change.path.parent for change in changes}:
            folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            for folder in sorted({change.path.parent for change in changes}):
                stack.enter_context(_locked(folder))
            for path, change in first.items():
                _check_unchanged(change)
                _sweep(path)
            staged = [(stack.enter_context(_staged(path, data)), path) for path, data in _contents(changes)]
            for temporary, path in staged:
                os.replace(temporary, path)
                flush_folder(path.parent)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or changes[0].path} cannot be written: {error.strerror or type(error).__name__}.",
            hint="Give the user who runs this the right to write there, and the disk some room.",
        ) from None


def backup_of(path: Path) -> Path:
    """Where the previous version of a file is kept."""
    return path.with_name(f"{path.name}.bak")


def retire(path: Path) -> None:
    """Make a file its own backup. Raises ConfigError."""
    path = Path(os.path.realpath(path))
    try:
        os.replace(path, backup_of(path))
        flush_folder(path.parent)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be renamed: {error.strerror}.", hint="Move it away by hand."
        ) from None


def _contents(changes: Sequence[Change]) -> Iterator[tuple[Path, bytes]]:
    """What is written where, in this order: each previous version before the file itself."""
    for change in changes:
        previous = change.before if change.backup is None else change.backup
        if previous is not None:
            yield backup_of(change.path), previous
        yield change.path, change.data


def _check_unchanged(change: Change) -> None:
    now = read_bytes(change.path) if os.path.lexists(change.path) else None
    if now != change.before:
        raise ConfigError(
            f"{change.path} was changed by somebody else in the meantime; nothing was written.",
            hint="Look at the file, then do it again.",
        )


def _sweep(path: Path) -> None:
    """Remove what a writer left behind that died between writing and renaming."""
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        stale.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Be the only one of us who writes in a folder; the system takes the lock back from whoever dies."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"Another program has been writing in {folder} for {LOCK_TIMEOUT:.0f} s.",
                        hint="Wait for it or end it, then do it again.",
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _staged(path: Path, data: bytes) -> Iterator[Path]:
    """A file with the content beside `path`, safe on the disk; gone on leaving unless it was renamed."""
    handle, name = mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            _inherit(file.fileno(), path)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _inherit(handle: int, path: Path) -> None:
    """Give the new file mode and owner of the one that it replaces; a backup has those of its file."""
    original = path.with_name(path.name.removesuffix(".bak"))
    if not hasattr(os, "fchmod"):
        return
    try:
        there = original.stat()
    except FileNotFoundError:
        os.fchmod(handle, NEW_FILE_MODE)
        return
    os.fchmod(handle, there.st_mode & 0o777)
    with contextlib.suppress(PermissionError):  # only root gives files away; our own are ours already
        os.fchown(handle, there.st_uid, there.st_gid)


def flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system has a way to."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
