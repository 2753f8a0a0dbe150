"""The unfinished file of a download: one process at a time appends to it, and only a verified one becomes the model.

All of it blocks; the callers run it in threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import Protocol

from ..config.atomic import flush_folder
from ..errors import DownloadFailed

try:
    import fcntl
except ImportError:  # a system without it has one process at a time by agreement only
    fcntl = None  # type: ignore[assignment]

BLOCK = 1 << 20
RESERVE = 64 << 20
"""Bytes of the disk that stay free for everything else."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class Part:
    """An open part file, locked; the system gives the lock back when its process dies."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle
        self.size = os.fstat(handle).st_size
        self._digest: _Digest | None = None

    @classmethod
    def open(cls, path: Path) -> Part | None:
        """The part file, made if need be; None while another process has it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not _lock(handle):
                    os.close(handle)
                    return None
                if _is_still(path, handle):
                    return cls(path, handle)
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # somebody has finished or removed it between opening and locking

    def close(self) -> None:
        """Let go of it; what is in it stays, but an empty one goes."""
        if self._handle >= 0:
            if self.size == 0:
                self.path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = -1

    def remove(self) -> None:
        """Take it off the disk and let go of it."""
        self.path.unlink(missing_ok=True)
        self.close()

    # --- content ---

    def read_in(self, sha256: str, git_sha1: str, total: int, stop: threading.Event) -> None:
        """Prepare to verify against what is expected; what is there already is read once, or until `stop`."""
        self._digest = _digest(sha256, git_sha1, total)
        if self._digest is None:
            return
        at = 0
        while (
            not stop.is_set()
            and at < self.size
            and (block := os.pread(self._handle, min(BLOCK, self.size - at), at))
        ):
            self._digest.update(block)
            at += len(block)

    def append(self, data: bytes) -> None:
        """Write to its end. Raises DownloadFailed where the disk is full."""
        if self._digest is not None:
            self._digest.update(data)
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._handle, view, self.size)
                self.size += written
                view = view[written:]
        except OSError as error:
            if error.errno in _FULL:
                raise DownloadFailed(
                    f"The disk of {self.path.parent} is full.",
                    hint="Make room, then start the download again.",
                ) from None
            raise DownloadFailed(f"{self.path} cannot be written: {error.strerror}.") from error

    def empty(self) -> None:
        """Begin again from nothing; `read_in` is needed anew."""
        os.ftruncate(self._handle, 0)
        self.size = 0
        self._digest = None

    def verify(self, sha256: str, git_sha1: str, total: int) -> None:
        """Raise DownloadFailed unless size and checksum are what the hub says."""
        if total and self.size != total:
            raise DownloadFailed(f"It has {self.size} bytes, but should have {total}.")
        found = self._digest.hexdigest() if self._digest is not None else ""
        if found != (sha256 or git_sha1):
            raise DownloadFailed(
                "Its checksum is wrong: what arrived is not what the hub has.",
                hint="Start the download again; if it stays, the hub, a mirror or a proxy damages the file.",
            )

    def promote(self, target: Path) -> None:
        """Put the whole file in its place in one step, safe on the disk, and let go of it."""
        os.fsync(self._handle)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(self.path, target)
        except OSError as error:
            raise DownloadFailed(
                f"{target} cannot be put in its place: {error.strerror}.",
                hint="The folder of models must be one file system, and writable.",
            ) from error
        flush_folder(target.parent)
        self.close()

    def check_room(self, total: int) -> None:
        """Raise DownloadFailed where the rest of the file cannot fit on the disk."""
        missing = total - self.size
        free = shutil.disk_usage(self.path.parent).free
        if missing > 0 and missing + RESERVE > free:
            raise DownloadFailed(
                f"There is not enough room: {_in_gib(missing)} more are needed in {self.path.parent}, "
                f"{_in_gib(free)} are free.",
                hint="Make room or choose a smaller quantization, then start the download again.",
            )


def is_locked(path: Path) -> bool:
    """Whether a living process works on a part file."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _lock(handle)
    finally:
        os.close(handle)


def is_what_it_should_be(path: Path, sha256: str, git_sha1: str, total: int, stop: threading.Event) -> bool:
    """Whether a file that is already there has the size and checksum that the hub tells."""
    if total and path.stat().st_size != total:
        return False
    digest = _digest(sha256, git_sha1, path.stat().st_size)
    if digest is None:
        return bool(total)
    with path.open("rb") as file:
        while not stop.is_set() and (block := file.read(BLOCK)):
            digest.update(block)
    return digest.hexdigest() == (sha256 or git_sha1)


def _digest(sha256: str, git_sha1: str, total: int) -> _Digest | None:
    """What is computed to compare with the expected checksum; git puts a line with the size before the content."""
    if sha256:
        return hashlib.sha256()
    if git_sha1:
        return hashlib.sha1(b"blob %d\0" % total, usedforsecurity=False)
    return None


def _lock(handle: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _in_gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
