"""The one thread that owns the model: pipelines are not safe to be used by two.

It takes jobs in the order they came, puts those together that can be drawn at once, and keeps one model loaded.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lollms_kernel.errors import GenerationFailed, LollmsError, QueueFull, ShuttingDown
from lollms_kernel.types import Notice

from .exhaustion import OutOfMemory
from .job import Job, Result
from .library import ModelSource
from .settings import DiffusersSettings

if TYPE_CHECKING:
    from .loading import LoadedModel

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 256
END_TIMEOUT: Final = 30.0


class Command:
    """Something to do in the engine's thread between two jobs."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.action = action
        self.outcome: Future[Any] = Future()


class Engine:
    """Start it once; `submit` jobs, `call` commands, `close` it."""

    def __init__(self, settings: DiffusersSettings, root: Path) -> None:
        self._settings = settings
        self._root = root
        self._waiting: deque[Job | Command] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._expected = 0
        self._loaded: LoadedModel | None = None
        self.facts: dict[str, Any] = {}
        """How the loaded model runs; empty without one. Replaced as a whole, so any thread may read it."""
        self.loaded_name: str | None = None
        self._thread = threading.Thread(target=self._run, name="image engine", daemon=True)
        self._thread.start()

    # --- from the event loop ---

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """A request is on its way while inside: only then waiting for company makes sense."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify_all()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises QueueFull or ShuttingDown."""
        self._queue(job)

    async def call(self, action: Callable[[], Any]) -> Any:
        """Do `action` in the engine's thread, after what waits already; its result or error."""
        command = Command(action)
        self._queue(command)
        return await asyncio.wrap_future(command.outcome)

    async def load(self, source: ModelSource) -> None:
        """Have this model loaded. Raises ModelLoadFailed."""
        await self.call(lambda: self._get_ready(source))

    async def unload(self) -> None:
        """Have no model loaded."""
        await self.call(self._unload)

    def withdraw(self, job: Job) -> None:
        """Nobody wants this job any more: it leaves the queue, or its drawing ends with the step under way."""
        job.stop()
        with self._changed:
            try:
                self._waiting.remove(job)
            except ValueError:
                return
        job.finish(None)

    async def close(self) -> None:
        """End everything and the thread, after the step under way."""
        with self._changed:
            self._closing = True
            left, self._waiting = list(self._waiting), deque()
            self._changed.notify_all()
        error = ShuttingDown("The image engine is stopping.", hint="Try again in a moment.")
        for item in left:
            _refuse(item, error)
        await asyncio.to_thread(self._thread.join, END_TIMEOUT)

    def _queue(self, item: Job | Command) -> None:
        with self._changed:
            if self._closing:
                raise ShuttingDown("The image engine is stopping.", hint="Try again in a moment.")
            if len(self._waiting) >= MAX_WAITING:
                raise QueueFull(f"{MAX_WAITING} image requests wait already.", hint="Try again later.")
            self._waiting.append(item)
            self._changed.notify_all()

    # --- in the thread ---

    def _run(self) -> None:
        while (work := self._next()) is not None:
            if isinstance(work, Command):
                try:
                    work.outcome.set_result(work.action())
                except Exception as error:  # whatever it is belongs to whoever waits for it
                    work.outcome.set_exception(error)
            else:
                self._draw(work)
        self._unload()

    def _next(self) -> Command | list[Job] | None:
        """The next command, or jobs to draw at once; None at the end."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if self._closing:
                return None
            first = self._waiting.popleft()
            if isinstance(first, Command):
                return first
            batch, key = [first], first.order.batch_key
            if key is None:
                return batch
            deadline = time.monotonic() + self._settings.batch_window
            self._gather(batch, key)
            while self._expected > 0 and _pictures(batch) < self._settings.max_batch:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
                self._gather(batch, key)
            return batch

    def _gather(self, batch: list[Job], key: object) -> None:
        """Move waiting jobs like the first into the batch while there is room."""
        for item in list(self._waiting):
            if not isinstance(item, Job) or item.order.batch_key != key:
                continue
            if _pictures(batch) + item.order.wanted.count <= self._settings.max_batch:
                self._waiting.remove(item)
                batch.append(item)

    def _draw(self, batch: list[Job]) -> None:
        from .drawing import Stopped, draw

        wanted = [job for job in batch if not job.stopped]
        for job in batch:
            if job.stopped:
                job.finish(None)
        if not wanted:
            return
        before, failed = self.loaded_name, None
        try:
            load = self._get_ready(wanted[0].order.source)
            assert self._loaded is not None
            results = draw(self._loaded, wanted, self._settings, lambda: self._closing)
        except Stopped:
            results, failed = {}, None
        except LollmsError as error:
            results, failed = {}, error.with_traceback(None)  # which would hold the model
            if isinstance(error, OutOfMemory):
                self._unload()
        except Exception as error:  # a library's own words for what went wrong with this request
            logger.exception("drawing failed")
            results, failed = (
                {},
                GenerationFailed(f"The pipeline failed: {str(error)[:300] or type(error).__name__}"),
            )
        else:
            for job, result in results.items():
                job.finish(_completed(result, load, before, self.loaded_name))
        for job in wanted:
            if job not in results:
                job.finish(failed)

    def _get_ready(self, source: ModelSource) -> float | None:
        """Load the model if it is not loaded; seconds that took."""
        if self._loaded is not None and self._loaded.source == source:
            return None
        from .loading import load_model

        self._unload()
        self._loaded = load_model(source, self._settings, self._root)
        self.facts, self.loaded_name = self._loaded.facts, source.name
        return self._loaded.seconds

    def _unload(self) -> None:
        if self._loaded is None:
            return
        self._loaded, self.facts, self.loaded_name = None, {}, None
        from .memory import give_back

        give_back()


def _pictures(batch: list[Job]) -> int:
    return sum(job.order.wanted.count for job in batch)


def _completed(result: Result, load: float | None, before: str | None, now: str | None) -> Result:
    """The result with what happened before the drawing."""
    notices = list(result.notices)
    if load is not None and before is not None:
        notices.append(Notice("model_swapped", f"'{before}' was unloaded to load '{now}'."))
    return msgspec.structs.replace(result, load=load, notices=notices)


def _refuse(item: Job | Command, error: LollmsError) -> None:
    if isinstance(item, Command):
        item.outcome.set_exception(error)
    else:
        item.finish(error)
