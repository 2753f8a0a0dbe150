"""One request on its way through the engine: what is wanted, how far it is, and what came of it.

A job is made and read on the event loop and worked on in the engine's thread; each method says which side may call it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final, Literal, TypeVar

import msgspec

from lollms_kernel.errors import GenerationFailed, LollmsError
from lollms_kernel.types import Info, Notice, Progress

from .input_images import InputImages
from .library import ModelSource
from .parameters import Wanted

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOG_EVERY: Final = 5.0
"""Seconds between two lines of the log that say how far a job is; every step is a line at level debug."""
TELL_EVERY: Final = 5.0
"""Seconds between two words to the client that its job waits or its model loads."""

Stage = Literal["waiting", "loading", "drawing"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the engine has to know of a request."""

    request_id: str
    source: ModelSource
    generation_type: str
    wanted: Wanted
    inputs: InputImages = InputImages()
    want_progress: bool = True

    @property
    def batch_key(self) -> object | None:
        """Orders with equal keys can be drawn at once; None: this one is drawn alone."""
        wanted, inputs = self.wanted, self.inputs
        if self.generation_type != "tti" or inputs.initial is not None or inputs.control is not None:
            return None
        return (
            self.source.name, wanted.width, wanted.height, wanted.steps, wanted.guidance_scale, wanted.scheduler,
            wanted.lora_scale, wanted.negative_prompt is None,
        )  # fmt: skip


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """One finished piece as the pipeline gave it: a picture, a list of frames, or samples of sound."""

    content: Any
    seed: int
    hidden: bool = False
    """Whether the safety checker blacked it out."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job; `facts` are how it was made, for metadata."""

    made: list[Made]
    facts: dict[str, Any]
    notices: list[Notice]
    load: float | None
    generate: float
    sampling_rate: int | None = None


class Job:
    """One order under way. At most one progress is kept, the newest: a slow reader misses steps, never memory."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._newest: Progress | None = None
        self._outcome: Result | LollmsError | None = None
        self._stopped = threading.Event()
        self._told_log = self._began = time.monotonic()
        self.stage: Stage = "waiting"
        """Set by the engine's thread."""
        self.ended = asyncio.Event()
        """Set when the engine does nothing more for it."""

    # --- on the event loop ---

    async def progress(self) -> AsyncIterator[Progress | Info]:
        """How far it is, until the engine does nothing more for it; before the first step, if that does not come soon,
        what it waits for."""
        while True:
            newest, self._newest = self._newest, None
            if newest is not None:
                yield newest
            elif self.ended.is_set():
                return
            else:
                self._news.clear()
                if not await self._hears(TELL_EVERY if self._has_to_wait() else None) and self._has_to_wait():
                    yield Info({"status": self.stage, "model": self.order.source.name})

    def result(self) -> Result:
        """What came of it. Raises its error."""
        if isinstance(self._outcome, LollmsError):
            raise self._outcome
        if self._outcome is None:
            raise GenerationFailed("The image engine stopped.", hint="Try again.")
        return self._outcome

    def stop(self) -> None:
        """Say that nobody wants it any more; `ended` tells when the engine has let go of it."""
        self._stopped.set()

    # --- in the engine's thread ---

    @property
    def stopped(self) -> bool:
        """Whether nobody wants it any more."""
        return self._stopped.is_set()

    def report(self, progress: Progress) -> None:
        """Tell how far it is, if anybody wants to know; a long job also tells the log."""
        now = time.monotonic()
        told = now - self._told_log >= LOG_EVERY
        if told:
            self._told_log = now
        if told or logger.isEnabledFor(logging.DEBUG):
            logger.log(
                logging.INFO if told else logging.DEBUG,
                "Request %s draws with '%s': step %d of %d after %.1f s.",
                self.order.request_id, self.order.source.name, progress.step, progress.total, now - self._began,
            )  # fmt: skip
        if self.order.want_progress:
            self._tell(self._take, progress)

    def finish(self, outcome: Result | LollmsError | None) -> None:
        """Tell what came of it, None if it was stopped; nothing more is done for it."""
        self._tell(self._end, outcome)

    def _tell(self, action: Callable[[T], None], what: T) -> None:
        with suppress(RuntimeError):  # the event loop has been closed: nobody is there to be told
            self._loop.call_soon_threadsafe(action, what)

    def _has_to_wait(self) -> bool:
        """Whether that is worth a word: nothing is drawn yet, and somebody wants to know."""
        return self.order.want_progress and self.stage != "drawing"

    async def _hears(self, timeout: float | None) -> bool:
        """Whether there is news, within that time."""
        try:
            async with asyncio.timeout(timeout):
                return await self._news.wait()
        except TimeoutError:
            return False

    def _take(self, progress: Progress) -> None:
        older = self._newest
        if older is not None and older.preview is not None and progress.preview is None:
            progress = msgspec.structs.replace(progress, preview=older.preview, mime_type=older.mime_type)
        self._newest = progress
        self._news.set()

    def _end(self, outcome: Result | LollmsError | None) -> None:
        if self._outcome is None:
            self._outcome = outcome
        self.ended.set()
        self._news.set()
