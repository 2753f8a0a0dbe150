"""Models of a hub on their way here: beside the engine, once for all who wait, and only as long as somebody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

from lollms_kernel.errors import ShuttingDown
from lollms_kernel.types import Info

from .engine import import_engine
from .hub import Progress, fetch_model
from .library import ModelSource
from .pulse import Pulse
from .settings import DiffusersSettings

logger = logging.getLogger(__name__)

TELL_EVERY: float = 5.0
"""Seconds between two words to a client that its model is being fetched."""
END_TIMEOUT: Final = 15.0
"""Seconds in which a transfer that nobody wants has to end."""


class Fetches:
    """Every model that is being fetched."""

    def __init__(self, settings: DiffusersSettings, pulse: Pulse) -> None:
        self._settings = settings
        self._pulse = pulse
        self._running: dict[Path, _Fetch] = {}
        self._complete: dict[Path, list[str]] = {}
        self._closed = False

    def has(self, source: ModelSource) -> bool:
        """Whether everything of the model is known to be on this machine."""
        if source.where != "hub":
            return True
        files = self._complete.get(_folder(source))
        return files is not None and all((_folder(source) / name).is_file() for name in files)

    async def bring(self, source: ModelSource) -> AsyncGenerator[Info, None]:
        """Have the model here, telling now and then how far it is. Whoever leaves lets go of it.

        Raises ModelLoadFailed, and BindingUnavailable where the engine cannot be imported.
        """
        if self.has(source):
            return
        fetch = await self._joined(source)
        try:
            while not (await asyncio.wait([fetch.task], timeout=TELL_EVERY))[0]:
                yield fetch.told()
            if fetch.task.cancelled():
                raise _closing()
            self._complete[_folder(source)] = fetch.task.result()
        finally:
            fetch.wanted -= 1
            if not fetch.wanted:
                fetch.stop()

    async def close(self) -> None:
        """Stop every transfer."""
        self._closed = True
        for fetch in self._running.values():
            fetch.stop()
        if self._running:
            await asyncio.wait([fetch.task for fetch in self._running.values()], timeout=END_TIMEOUT)

    async def _joined(self, source: ModelSource) -> _Fetch:
        """What fetches the model, counted as wanted once more."""
        folder = _folder(source)
        while (running := self._running.get(folder)) is not None and running.stopped:
            await asyncio.wait([running.task])
            await asyncio.sleep(0)  # for `_forget`, if it has just ended
        if self._closed:
            raise _closing()
        fetch = self._running.get(folder)
        if fetch is None:
            fetch = self._running[folder] = _Fetch(source, self._settings, self._pulse)
            fetch.task.add_done_callback(lambda task: self._forget(folder, task))
        fetch.wanted += 1
        return fetch

    def _forget(self, folder: Path, task: asyncio.Task[list[str]]) -> None:
        del self._running[folder]
        if not task.cancelled():
            task.exception()  # where everybody has left nobody asks for it


class _Fetch:
    """One model that is being fetched, and how many wait for it."""

    def __init__(self, source: ModelSource, settings: DiffusersSettings, pulse: Pulse) -> None:
        self.wanted = 0
        self.stopped = False
        self._source = source
        self._settings = settings
        self._pulse = pulse
        self._progress = Progress(pulse.beat)
        self.task = asyncio.create_task(self._run())

    def told(self) -> Info:
        """How far it is."""
        news: dict[str, Any] = {"status": "fetching", "model": self._source.name}
        if self._progress.total:
            news |= {"fetched_bytes": self._progress.done, "total_bytes": self._progress.total}
        return Info(news)

    def stop(self) -> None:
        """Nobody waits for it any more; what is here stays, and whoever comes next goes on there."""
        if not self.task.done():
            logger.info("Model %s is fetched no further: nobody waits for it.", self._source.name)
        self.stopped = True
        self.task.cancel()

    async def _run(self) -> list[str]:
        source = self._source
        with self._pulse.moving():
            half = await asyncio.to_thread(self._halved)
        return await fetch_model(
            source.name, _folder(source), source.parts, half=half, progress=self._progress
        )

    def _halved(self) -> bool:
        import_engine()
        import torch

        from .device import halves

        return halves(torch, self._settings)


def _closing() -> ShuttingDown:
    return ShuttingDown("The image binding is stopping.", hint="Try again in a moment.")


def _folder(source: ModelSource) -> Path:
    assert source.path is not None
    return source.path
