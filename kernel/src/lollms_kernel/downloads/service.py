"""The downloads of one folder of models: a queue that survives restarts, worked on by whoever holds it open.

    async with Downloads(folder, settings) as downloads:
        pulled = await downloads.ensure(parse_wanted("owner/repo:Q4_K_M"))

A server works on the whole queue; a command works on what it asked for itself. Both may have the same folder open: a
file is written by one of them at a time, whoever locks it, and each sees what the other does in the rows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ..config.schema import DownloadsConfig
from ..errors import Cancelled, DownloadFailed, InvalidRequest, LollmsError, NotFound, QueueFull
from ..quantization import choose, is_model, offered, quantization_of, shards_of
from ..upstream import Pauses
from .hub import Hub, HubFile, HubModel
from .in_thread import finished
from .names import Wanted
from .part import Part, is_locked
from .places import Places
from .records import UNDER_WAY, Download, Records, Stopped

if TYPE_CHECKING:  # these import an HTTP client, which a start of the server need not wait for
    from .fetching import Fetcher
    from .transfer import Transfer

logger = logging.getLogger(__name__)

Key = tuple[str, str]

POLL = 1.0
"""Seconds after which a change that another process made is seen."""
MAX_QUEUED = 10_000
"""Downloads that may be under way or wait."""
UNREACHABLE = 60.0
"""Seconds for which a hub that did not list its models is not asked again."""


class Pulled(msgspec.Struct, frozen=True):
    """A model that is here: the name that requests use, and its files, the first of which engines open."""

    name: str
    paths: tuple[Path, ...]


class Downloads:
    """Use it as an async context manager, or `open` and `close` it. Every method may be called before `open`."""

    def __init__(
        self,
        folder: Path,
        hub_url: str,
        token: str | None = None,
        settings: DownloadsConfig = DownloadsConfig(),  # noqa: B008 - it is frozen
        *,
        pauses: Pauses = Pauses(patience=60.0),  # noqa: B008
        poll: float = POLL,
    ) -> None:
        self.places = Places(folder)
        self.hub = Hub(hub_url, token)
        self.settings = settings
        self._token = token
        self._pauses = pauses
        self._poll = poll
        self._records = Records(self.places.records)
        self._fetcher: Fetcher | None = None
        self._transfers: dict[Key, Transfer | None] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._own: set[Key] = set()
        self._everything = False
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._closed = False
        self._unreachable_until = 0.0

    # --- lifetime ---

    async def open(self, *, everything: bool = True) -> None:
        """Restore what an earlier process left, and work on the whole queue from now on.

        What was interrupted or has failed is queued again; what was cancelled is forgotten. Without `everything`
        nothing is restored, and only what is asked for here is worked on.
        """
        if everything and not self._everything:
            await self._restore()
            self._everything = True
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name="downloads")

    async def close(self) -> None:
        """Stop; what is under way here is queued again and goes on from its last byte at the next start."""
        if self._closed:
            return
        self._closed = True
        if self._working is not None:
            self._working.cancel()
            with suppress(asyncio.CancelledError):
                await self._working
            self._working = None
        under_way = list(self._tasks)
        for key in under_way:
            await self._halt(key)
            await self._records.change(*key, among=("downloading",), status="queued", speed=0.0)
        if self._fetcher is not None:
            await self._fetcher.close()
        await self._records.close()

    async def __aenter__(self) -> Self:
        await self.open(everything=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _restore(self) -> None:
        rows = await self._records.all()
        if not rows and not self.places.own.exists():
            return
        elsewhere = [
            row.key for row in rows if await asyncio.to_thread(is_locked, self.places.part(*row.key))
        ]
        await self._records.restore(elsewhere)
        for row in await self._records.all():
            if row.status == "complete" and not await asyncio.to_thread(self._target_exists, row.key):
                await self._records.delete(*row.key)
        known = [row.key for row in await self._records.all()]
        await asyncio.to_thread(self.places.sweep, known)

    def _target_exists(self, key: Key) -> bool:
        try:
            return self.places.target(*key).is_file()
        except InvalidRequest:
            return False

    # --- what there is ---

    async def all(self, repo: str | None = None, file: str | None = None) -> list[Download]:
        """Downloads, the oldest first; of one repository or file only where these are given."""
        return [self._live(row) for row in await self._records.all(repo, file)]

    async def get(self, repo: str, file: str) -> Download | None:
        """One download."""
        row = await self._records.get(repo, file)
        return None if row is None else self._live(row)

    def _live(self, row: Download) -> Download:
        transfer = self._transfers.get(row.key)
        if transfer is None or row.status != "downloading":
            return row
        now = transfer.download
        return msgspec.structs.replace(row, downloaded=now.downloaded, total=now.total, speed=now.speed)

    async def is_here(self, download: Download) -> bool:
        """Whether the file of a complete download is still in its place."""
        return download.status == "complete" and await asyncio.to_thread(self._target_exists, download.key)

    def path(self, repo: str, file: str) -> Path:
        """Where a file is once it is complete. Raises InvalidRequest for names that would lead elsewhere."""
        return self.places.target(repo, file)

    async def changes(self) -> None:
        """Wait until something has changed here, or for a moment in which another process may have changed it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll):
                await self._changed.wait()

    async def catalogue(self, limit: int, fresh: float) -> list[HubModel]:
        """The GGUF models of the hub that changed last, asked for anew after `fresh` seconds.

        Where the hub cannot be reached, what it said last. Raises what keeps it from telling where it never did.
        """
        key = f"{self.hub.url} {limit}"
        known = await self._records.remembered(key)
        if known is not None and (known[0] < fresh or time.monotonic() < self._unreachable_until):
            return await asyncio.to_thread(_decode_models, known[1])
        try:
            models = await self.hub.models(limit)
        except LollmsError as error:
            if known is None:
                raise
            self._unreachable_until = time.monotonic() + UNREACHABLE
            logger.info("%s What it listed before is used.", error.message)
            return await asyncio.to_thread(_decode_models, known[1])
        await self._records.remember(key, await asyncio.to_thread(msgspec.json.encode, models))
        return models

    # --- what may be asked for ---

    async def enqueue(self, repo: str, file: str, known: HubModel | None = None) -> tuple[Download, bool]:
        """The download, queued, and True; or as it is and False if it is under way or complete.

        Raises NotFound if the hub has no such file, or what keeps the hub from telling.
        """
        self.places.target(repo, file)
        there = await self.get(repo, file)
        if there is not None and (there.under_way or await self.is_here(there)):
            self._mine(there.key)
            return there, False
        if there is not None:
            if there.status == "complete":
                await self._records.delete(repo, file)  # its file is gone
            self.hub.forget(repo)
        model = known or await self.hub.model(repo)
        found = model.file(file)
        if found is None:
            raise NotFound(f"The repository '{repo}' has no file '{file}'.", hint=_hint(model))
        return await self._put(model, found)

    async def _put(self, model: HubModel, file: HubFile) -> tuple[Download, bool]:
        key = (model.id, file.path)
        self.places.target(*key)
        if sum(row.under_way for row in await self._records.all()) >= MAX_QUEUED:
            raise QueueFull(
                f"There are {MAX_QUEUED} downloads in the queue already.", hint="Wait, or cancel some."
            )
        download, fresh = await self._records.enqueue(
            *key, total=file.size, revision=model.revision, sha256=file.sha256, git_sha1=file.git_sha1
        )
        self._mine(key)
        self._tell()
        return download, fresh

    def _mine(self, key: Key) -> None:
        self._own.add(key)
        self._wake.set()

    async def pause(self, repo: str, file: str) -> Download:
        """Stop it for now; what is here stays. Raises NotFound."""
        return await self._stop(repo, file, "paused", UNDER_WAY)

    async def resume(self, repo: str, file: str) -> Download:
        """Queue it again. Raises NotFound."""
        download, _ = await self.enqueue(repo, file)
        return download

    async def cancel(self, repo: str, file: str) -> Download:
        """Give it up, whatever its state; it is forgotten at the next start. Raises NotFound."""
        return await self._stop(repo, file, "cancelled", None)

    async def _stop(self, repo: str, file: str, status: str, among: Sequence[str] | None) -> Download:
        changed = await self._records.change(repo, file, among=among, status=status, speed=0.0)  # type: ignore[arg-type]
        await self._halt((repo, file))
        self._tell()
        there = await self._records.get(repo, file) if changed is not None or among else None
        if there is None:
            raise _unknown(repo, file)
        return there

    async def reset(self, repo: str, file: str) -> Download:
        """Take the download and its file away; as it was. Raises NotFound."""
        there = await self.get(repo, file)
        if there is None or await self._records.delete(repo, file) is None:
            raise _unknown(repo, file)
        await self._halt((repo, file))
        with suppress(InvalidRequest):
            await asyncio.to_thread(self.places.remove, repo, file)
        self._tell()
        return there

    # --- a model, whatever it takes ---

    async def ensure(
        self, wanted: Wanted, progress: Callable[[list[Download]], None] | None = None
    ) -> Pulled:
        """Make sure that a model is here, and say what it is called. Its files may be here already, even offline.

        `progress` is told how far its files are. Cancelling this leaves the download in the queue. Raises NotFound,
        DownloadFailed, what keeps the hub from giving it, or Cancelled if somebody else stopped it.
        """
        await self.open(everything=False)
        keys = await self._local(wanted) or await self._enqueue_wanted(wanted)
        while True:
            downloads = [await self.get(*key) for key in keys]
            there = [download for download in downloads if download is not None]
            if progress is not None:
                progress(there)
            if len(there) < len(keys):
                raise Cancelled(f"The download of '{wanted}' was removed.")
            for download in there:
                _check(download)
            if all(download.status == "complete" for download in there):
                return Pulled(there[0].name, tuple(self.places.target(*key) for key in keys))
            await self.changes()

    async def files_of(self, wanted: Wanted) -> tuple[HubModel, list[HubFile]]:
        """The files that `wanted` means, as the hub tells. Raises NotFound with what there is."""
        model = await self.hub.model(wanted.repo)
        paths = [file.path for file in model.files]
        if wanted.file is not None:
            found = model.file(wanted.file)
            names = shards_of(found.path, paths) if found else []
        else:
            names = choose(paths, wanted.quantization)
        if not names:
            raise NotFound(f"The hub has no '{wanted}'.", hint=_hint(model))
        return model, [file for name in names if (file := model.file(name))]

    async def _enqueue_wanted(self, wanted: Wanted) -> list[Key]:
        model, files = await self.files_of(wanted)
        keys = []
        for file in files:
            download, _ = await self.enqueue(model.id, file.path, model)
            keys.append(download.key)
        return keys

    async def _local(self, wanted: Wanted) -> list[Key]:
        """The files that `wanted` means if they are all here, [] else."""
        folded = wanted.repo.casefold()
        rows = [row for row in await self._records.all() if row.repo.casefold() == folded]
        here = {row.file: row for row in rows if await self.is_here(row)}
        if wanted.file is not None:
            names = [name for name in here if name.casefold() == wanted.file.casefold()]
        elif wanted.quantization is not None:
            names = [name for name in here if is_model(name) and quantization_of(name) == wanted.quantization]
        else:
            names = choose([*here], None)
        if not names:
            return []
        names = shards_of(names[0], here)
        count = (
            names[0].rpartition("-of-")[2].partition(".")[0] if len(names) > 1 or "-of-" in names[0] else "1"
        )
        whole = not count.isdigit() or len(names) == int(count)
        return [here[name].key for name in names] if whole else []

    # --- the work ---

    async def _work(self) -> None:
        while True:
            try:
                await self._start_some()
            except LollmsError as error:  # a full disk must not end the queue
                logger.warning("the queue of downloads rests: %s", error.detail)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll):
                    await self._wake.wait()
            self._wake.clear()

    async def _start_some(self) -> None:
        if len(self._tasks) >= self.settings.parallel or not (self._own or self._everything):
            return
        for row in await self._records.all():
            if len(self._tasks) >= self.settings.parallel:
                return
            mine = self._everything or row.key in self._own
            if row.under_way and mine and row.key not in self._tasks and not self._closed:
                self._tasks[row.key] = asyncio.create_task(
                    self._transfer(row.key), name=f"download {row.name}"
                )

    async def _transfer(self, key: Key) -> None:
        """One download from its lock to its end, told in its row."""
        try:
            part = await finished(lambda: Part.open(self.places.part(*key)))
            if part is None:
                await asyncio.sleep(self._poll)  # another process is at it; its end is seen in the row
                return
            try:
                await self._fetch(key, part)
            finally:
                await finished(part.close)
        except LollmsError as error:
            await self._failed(key, error.detail)
        except OSError as error:
            await self._failed(key, f"The folder of models cannot be written: {error.strerror or error}.")
        except Exception as error:  # ours or a library's mistake; begun again it would only fail again
            logger.exception("the download of %s/%s ended in a mistake", *key)
            await self._failed(key, f"The server made a mistake: {error!r}. Its log has more.")
        finally:
            self._tasks.pop(key, None)
            self._transfers.pop(key, None)
            self._wake.set()
            self._tell()

    async def _fetch(self, key: Key, part: Part) -> None:
        row = await self._records.change(*key, among=UNDER_WAY, status="downloading", error="", speed=0.0)
        if row is None:  # it was stopped meanwhile
            if await self._records.get(*key) is None:
                await finished(part.remove)
            return
        from .fetching import Fetcher
        from .transfer import Transfer

        if self._fetcher is None:
            self._fetcher = Fetcher(self.hub.url, self._token, self.settings.stall_timeout)
        transfer = Transfer(
            row,
            part,
            self.places.target(*key),
            hub=self.hub,
            fetcher=self._fetcher,
            save=self._save,
            retries=self.settings.retries,
            pauses=self._pauses,
        )
        self._transfers[key] = transfer
        self._tell()
        try:
            done = await transfer.run()
        except Stopped:
            if await self._records.get(*key) is None:
                await finished(part.remove)
            return
        values = {
            name: getattr(done, name)
            for name in ("total", "downloaded", "speed", "sha256", "git_sha1", "etag")
        }
        await self._records.change(*key, among=("downloading",), status="complete", error="", **values)
        logger.info("%s is here: %d bytes", done.name, done.total)

    async def _save(self, download: Download) -> None:
        names = ("total", "downloaded", "speed", "revision", "sha256", "git_sha1", "etag")
        values = {name: getattr(download, name) for name in names}
        if await self._records.change(*download.key, among=("downloading",), **values) is None:
            raise Stopped
        self._tell()

    async def _failed(self, key: Key, reason: str) -> None:
        logger.warning("the download of %s/%s failed: %s", *key, reason)
        transfer = self._transfers.get(key)
        values: dict[str, Any] = {} if transfer is None else {"downloaded": transfer.download.downloaded}
        try:
            await self._records.change(
                *key, among=UNDER_WAY, status="error", error=reason, speed=0.0, **values
            )
        except LollmsError as error:
            logger.warning("%s", error.detail)

    async def _halt(self, key: Key) -> None:
        """End this process's own transfer of a file, if there is one."""
        task = self._tasks.get(key)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _decode_models(said: bytes) -> list[HubModel]:
    return msgspec.json.decode(said, type=list[HubModel])


def _check(download: Download) -> None:
    """Raise what has ended a download badly."""
    if download.status == "error":
        raise DownloadFailed(f"{download.name}: {download.error}")
    if download.status in ("paused", "cancelled", "unknown"):
        raise Cancelled(f"The download of '{download.name}' was {download.status}.", hint="Start it again.")


def _unknown(repo: str, file: str) -> NotFound:
    return NotFound(f"There is no download '{repo}/{file}'.", hint="`lollms ps` lists downloads.")


def _hint(model: HubModel) -> str:
    kinds = offered(file.path for file in model.files)
    if kinds:
        return f"Its quantizations: {', '.join(kinds)}."
    models = [file.path for file in model.files if is_model(file.path)]
    return f"It has: {', '.join(models[:5])}." if models else "It has no GGUF file."
