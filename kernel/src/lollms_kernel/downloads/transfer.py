"""One file from a hub to its place: goes on where it stopped, verifies, and only then shows the file to anybody.

    what is on the disk → is it all? → ask for the rest → append and compute the checksum → verify → rename

Bytes are written and hashed in threads, a block at a time while the next one arrives.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from ..errors import DownloadFailed, LollmsError, RateLimited, Unavailable
from ..upstream import Pauses
from .fetching import Answer, Fetcher, NothingLeft
from .hub import Hub
from .in_thread import finished, settled
from .part import Part, is_what_it_should_be
from .records import Download

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
ENOUGH = 1 << 20
"""Bytes after which a connection counts as having worked: failures are counted anew."""


class _Changed(Exception):
    """The hub has another file than the one that was begun."""


class _Damaged(DownloadFailed):
    """The checksum is wrong."""


class _TooMuch(Exception):
    """More bytes arrive than the file has."""


class Meter:
    """How far a transfer is, for listings; `tell` is called now and then with new figures."""

    def __init__(
        self, tell: Callable[[Download], Awaitable[None]], every: float, clock: Callable[[], float]
    ) -> None:
        self._tell = tell
        self._every = every
        self._clock = clock
        self._started = self._last = clock()
        self._base: int | None = None

    def restart(self) -> None:
        """Bytes so far were not fetched by this connection."""
        self._base = None

    def measured(self, download: Download, size: int) -> Download:
        """The download with its present size and the average speed since the start."""
        now = self._clock()
        if self._base is None:
            self._base, self._started = size, now
        passed = now - self._started
        speed = (size - self._base) / passed if passed > 0 else 0.0
        return msgspec.structs.replace(download, downloaded=size, speed=max(0.0, speed))

    async def note(self, download: Download) -> None:
        """Tell, if it is time to."""
        if self._clock() - self._last >= self._every:
            self._last = self._clock()
            await self._tell(download)


class Transfer:
    """Fetches one file. `download` is what is known by now; listings may read it at any time."""

    def __init__(
        self,
        download: Download,
        part: Part,
        target: Path,
        *,
        hub: Hub,
        fetcher: Fetcher,
        save: Callable[[Download], Awaitable[None]],
        retries: int,
        pauses: Pauses,
        every: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.download = download
        self._part = part
        self._target = target
        self._hub = hub
        self._fetcher = fetcher
        self._save = save
        self._retries = retries
        self._pauses = pauses
        self._every = every
        self._clock = clock
        self._meter = Meter(save, every, clock)

    async def run(self) -> Download:
        """The complete download, its file in its place. Raises DownloadFailed, what a refusal means, or Stopped."""
        await self._know()
        if await self._is_there():
            return self._complete()
        await finished(lambda: self._part.check_room(self.download.total))
        await self._begin(self.download.etag)
        resumed = self._part.size > 0
        try:
            await self._fetch_current()
        except _Damaged:
            if not resumed:  # it arrived like this; another try is for somebody to decide
                raise
            logger.warning(
                "%s: what an earlier start left is damaged; it is fetched anew", self.download.name
            )
            await self._fetch_current()
        await finished(lambda: self._part.promote(self._target))
        return self._complete()

    async def _fetch_current(self) -> None:
        """Fetch and verify, and once more where the hub has changed the file meanwhile."""
        try:
            await self._fetch_patiently()
        except _Changed:
            await self._start_over()
            try:
                await self._fetch_patiently()
            except _Changed:
                raise DownloadFailed(
                    "The file changes on the hub while it is fetched.", hint="Start the download again later."
                ) from None
        await self._verify()

    def _complete(self) -> Download:
        size = self.download.total or self.download.downloaded
        return msgspec.structs.replace(
            self.download, status="complete", total=size, downloaded=size, error=""
        )

    # --- before the first byte ---

    async def _know(self) -> None:
        """Ask the hub for size and checksum where nobody has yet."""
        known = self.download
        if known.sha256 or known.git_sha1 or known.total:
            return
        model = await self._hub.model(known.repo)
        file = model.file(known.file)
        if file is not None:
            await self._become(
                total=file.size, sha256=file.sha256, git_sha1=file.git_sha1, revision=model.revision
            )

    async def _is_there(self) -> bool:
        """Whether the file lies in its place already. Raises DownloadFailed if another one does."""
        target, known = self._target, self.download
        if not await asyncio.to_thread(target.exists):
            return False
        stop = threading.Event()
        expected = (known.sha256, known.git_sha1, known.total, stop)
        if await finished(lambda: is_what_it_should_be(target, *expected), stop):
            await finished(self._part.remove)
            return True
        raise DownloadFailed(
            f"{target} exists and is not the file that the hub has.",
            hint="Move it away, then start the download again.",
        )

    async def _begin(self, etag: str) -> None:
        """Prepare the part file: what is in it counts if it can be part of what is expected."""
        known = self.download
        if known.total and self._part.size > known.total:
            await finished(self._part.empty)
        await self._read_in()
        self.download = msgspec.structs.replace(known, etag=etag, downloaded=self._part.size)

    async def _start_over(self) -> None:
        """Take what the hub has now instead of what was begun."""
        known = self.download
        logger.info("%s has changed on the hub; it is fetched anew", known.name)
        self._hub.forget(known.repo)
        model = await self._hub.model(known.repo)
        file = model.file(known.file)
        if file is None:
            raise DownloadFailed(f"The hub does not have '{known.name}' any more.")
        await finished(self._part.empty)
        await self._become(
            total=file.size, sha256=file.sha256, git_sha1=file.git_sha1, revision=model.revision, etag=""
        )
        await self._begin("")

    async def _become(self, **values: object) -> None:
        self.download = msgspec.structs.replace(self.download, **values)
        await self._save(self.download)

    # --- the bytes ---

    async def _fetch_patiently(self) -> None:
        """Fetch the rest, with further tries after what may pass, as long as bytes arrive now and then."""
        failures, farthest = 0, self._part.size
        while not self._is_whole():
            try:
                await self._fetch()
                if not self.download.total or self._is_whole():
                    return
                problem: LollmsError = Unavailable(
                    "The connection ended before the file did.", hint="Try again later."
                )
            except (Unavailable, RateLimited) as error:
                problem = error
            failures = 1 if self._part.size - farthest >= ENOUGH else failures + 1
            farthest = max(farthest, self._part.size)  # what had to be thrown away does not count twice
            wait = problem.retry_after
            if failures > self._retries or (wait or 0) > self._pauses.patience:
                raise problem
            pause = self._pauses.before(failures - 1, wait)
            logger.info("%s: %s Try %d in %.1f s.", self.download.name, problem.message, failures + 1, pause)
            await self._save(self.download)
            await self._pauses.sleep(pause)

    def _is_whole(self) -> bool:
        return self._part.size == self.download.total > 0

    async def _fetch(self) -> None:
        known = self.download
        try:
            async with self._fetcher.open(
                known.repo, known.file, known.revision, self._part.size, known.etag
            ) as answer:
                await self._take_over(answer)
                self._meter.restart()
                await self._receive(answer.blocks)
        except _TooMuch:
            await self._discard()
            raise DownloadFailed(
                f"More bytes arrive than the {known.total} that the file should have.",
                hint="The hub or a proxy sends something else. Start the download again later.",
            ) from None
        except NothingLeft as nothing:
            if nothing.total == self._part.size and known.total in (0, nothing.total):
                self.download = msgspec.structs.replace(known, total=nothing.total)
                return
            await self._discard()
            if known.total and nothing.total and nothing.total != known.total:
                raise DownloadFailed(
                    f"The hub says that the file has {known.total} bytes, but sends only {nothing.total}.",
                    hint="Start the download again later; perhaps the repository is being changed.",
                ) from None
            raise Unavailable("The hub has fewer bytes than are here; it is fetched anew.") from None

    async def _take_over(self, answer: Answer) -> None:
        """Compare an answer's headers with what is known. Raises _Changed, or what is wrong."""
        known = self.download
        expected = known.sha256 or known.git_sha1
        learned: dict[str, object] = {}
        if answer.linked and expected and len(answer.linked) == len(expected) and answer.linked != expected:
            raise _Changed
        if answer.linked and not expected:
            learned["sha256" if len(answer.linked) == 64 else "git_sha1"] = answer.linked
        if answer.start == 0 and self._part.size:
            await self._discard()
        elif answer.start != self._part.size:
            raise Unavailable("The hub sent another part of the file than was asked for.")
        elif answer.start and known.etag and answer.etag and answer.etag != known.etag:
            await self._discard()
            raise Unavailable("The file is another one than before; it is fetched anew.")
        if answer.total and known.total and answer.total != known.total:
            await self._discard()
            raise DownloadFailed(
                f"The hub says that the file has {known.total} bytes, but sends one of {answer.total}.",
                hint="Start the download again later; perhaps the repository is being changed.",
            )
        await self._become(total=known.total or answer.total, etag=answer.etag, **learned)
        if learned or not self._part.size:
            await self._read_in()
            size = self.download.total
            await finished(lambda: self._part.check_room(size))

    async def _receive(self, blocks: AsyncIterator[bytes]) -> None:
        """Append what arrives; one block is written while the next one is received."""
        gathered: list[bytes] = []
        size = 0
        left = self.download.total - self._part.size if self.download.total else None
        since = self._clock()
        writing: asyncio.Future[None] | None = None
        try:
            async for block in blocks:
                if left is not None and len(block) > left:
                    raise _TooMuch
                left = None if left is None else left - len(block)
                gathered.append(block)
                size += len(block)
                if size >= BLOCK or self._clock() - since >= self._every:
                    if writing is not None:
                        await asyncio.shield(writing)
                    if left is None:  # nobody has said how long this goes on
                        await finished(lambda: self._part.check_room(self._part.size + BLOCK))
                    writing, gathered, size, since = self._write(gathered), [], 0, self._clock()
                self.download = self._meter.measured(self.download, self._part.size)
                await self._meter.note(self.download)
        finally:
            await settled(writing)
            if gathered:
                await settled(self._write(gathered))
            self.download = self._meter.measured(self.download, self._part.size)

    def _write(self, gathered: list[bytes]) -> asyncio.Future[None]:
        return asyncio.ensure_future(asyncio.to_thread(self._part.append, b"".join(gathered)))

    async def _discard(self) -> None:
        """Throw away what is here and prepare for the first byte."""
        await finished(self._part.empty)
        await self._become(downloaded=0, etag="")
        await self._read_in()

    async def _read_in(self) -> None:
        known, stop = self.download, threading.Event()
        await finished(lambda: self._part.read_in(known.sha256, known.git_sha1, known.total, stop), stop)

    async def _verify(self) -> None:
        known = self.download
        if not known.sha256 and not known.git_sha1:
            logger.warning("%s: the hub tells no checksum; only the size was compared", known.name)
            if not known.total:
                raise DownloadFailed(
                    "The hub tells neither size nor checksum, so nobody knows whether it is whole."
                )
            return
        try:
            await finished(lambda: self._part.verify(known.sha256, known.git_sha1, known.total))
        except DownloadFailed as error:
            await self._discard()
            raise _Damaged(error.message, hint=error.hint) from None
