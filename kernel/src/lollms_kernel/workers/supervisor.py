"""Keeps one worker running: starts it when it is needed, again after a crash, and stops it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ..errors import BindingUnavailable, LollmsError, WorkerCrashed, WorkerHung
from ..types import Event
from .faults import Fault
from .link import Link
from .methods import Opening
from .process import Worker, stopped

if TYPE_CHECKING:
    from ..config.schema import WorkersConfig

logger = logging.getLogger(__name__)

State = Literal["stopped", "starting", "ready", "backoff"]

HEALTHY_AFTER = 60.0
"""Seconds of work after which an earlier crash does not count any more."""
UNLOADED = "its model was unloaded"
_LEAST_DELAY = 0.05
"""What a first pause of nothing grows from."""


class Backoff:
    """How long to wait before the next start: twice as long after each crash, up to `ceiling`."""

    def __init__(self, first: float, ceiling: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first = first
        self._ceiling = ceiling
        self._clock = clock
        self._next = first
        self._ready_at: float | None = None

    def ready(self) -> None:
        """The worker has started."""
        self._ready_at = self._clock()

    def crashed(self) -> float:
        """The worker has died: seconds to wait."""
        if self._ready_at is not None and self._clock() - self._ready_at >= HEALTHY_AFTER:
            self._next = self._first
        self._ready_at = None
        delay = min(self._next, self._ceiling)
        self._next = max(delay, _LEAST_DELAY) * 2
        return delay


class Supervisor:
    """One worker at a time, started by the first call that needs it.

    One task, the keeper, owns the process for as long as there is one; `stop` ends both.
    """

    def __init__(
        self,
        name: str,
        target: str,
        opening: Opening,
        limits: WorkersConfig,
        observe: Callable[[Event], None],
    ) -> None:
        self.state: State = "stopped"
        self.restarts = 0
        self._name = name
        self._target = target
        self._opening = opening
        self._limits = limits
        self._observe = observe
        self._backoff = Backoff(limits.restart_delay, limits.restart_delay_max)
        self._worker: Worker | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Link | Fault] | None = None
        """The line to the worker as soon as there is one, or why there will be none."""
        self._restart_at = 0.0
        self._stopping = False
        self._why_stopped = UNLOADED
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The worker's process id while it runs."""
        return self._worker.pid if self._worker else None

    async def link(self) -> Link:
        """The line to the running worker, which is started if need be.

        Raises what its `open` raised, or BindingUnavailable if it is not ready within `start_timeout`.
        """
        while self._stopping and self._keeper is not None:
            await asyncio.wait([self._keeper])
        if self._closed:
            raise BindingUnavailable(f"Binding '{self._name}' is closed.")
        if self._keeper is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._keeper = asyncio.create_task(self._keep(), name=f"worker {self._name}")
            self._keeper.add_done_callback(self._kept)
        assert self._ready is not None
        ready = self._ready
        if not ready.done():
            await asyncio.wait([ready], timeout=self._limits.start_timeout)
        if not ready.done():
            raise self._not_yet()
        outcome = ready.result()
        if isinstance(outcome, Fault):
            raise outcome.error()
        return outcome

    async def stop(self, why: str = UNLOADED) -> None:
        """End the worker; the next call starts another. Whatever is under way ends with an error that says why."""
        keeper = self._keeper
        if keeper is None:
            return
        if not self._stopping:
            self._stopping, self._why_stopped = True, why
            keeper.cancel()
        await asyncio.wait([keeper])

    async def close(self) -> None:
        """End the worker for good."""
        self._closed = True
        await self.stop("its instance was changed or removed, or the server stops")

    # --- the keeper -------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Run one worker after the other. If the first does not start it is over, and the callers know why."""
        try:
            worker = await self._start()
            while True:
                await self._serve(worker)
                worker = await self._restart()
        except LollmsError as error:
            logger.warning("worker %s did not start: %s", self._name, error.detail)
            self._settle(Fault.of(error))

    async def _start(self) -> Worker:
        self.state = "starting"
        began = time.monotonic()
        worker = self._worker = Worker(self._name, self._target, self._limits, self._ended)
        await worker.start(self._opening)
        self._backoff.ready()
        logger.info("worker %s is ready", self._name, extra={"facts": {"pid": worker.pid}})
        facts = {"instance": self._name, "restarts": self.restarts, "seconds": time.monotonic() - began}
        self._observe(Event("worker_started", facts))
        return worker

    async def _serve(self, worker: Worker) -> None:
        self.state = "ready"
        self._settle(worker.link)
        try:
            await worker.wait()
        except asyncio.CancelledError:
            await worker.stop(self._why_stopped)
            raise

    async def _restart(self) -> Worker:
        while True:
            delay = self._backoff.crashed()
            self.state = "backoff"
            self._restart_at = time.monotonic() + delay
            logger.info("worker %s starts again in %.3g s", self._name, delay)
            await asyncio.sleep(delay)
            self.restarts += 1
            try:
                return await self._start()
            except (WorkerCrashed, WorkerHung):
                continue  # the next pause is longer

    def _settle(self, outcome: Link | Fault) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(outcome)

    def _ended(self, fault: Fault) -> None:
        """From now on calls wait for the next worker; who waited for this one is told right after."""
        self.state = "backoff"
        if self._ready is None or self._ready.done():
            self._ready = asyncio.get_running_loop().create_future()
        error = fault.error()
        if isinstance(error, WorkerCrashed | WorkerHung):
            self._report(error)

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        self._keeper = self._worker = None
        self._stopping = False
        self.state = "stopped"
        error = None if keeper.cancelled() else keeper.exception()
        if error is not None:
            logger.error("worker %s is not kept any more", self._name, exc_info=error)
        self._settle(Fault.of(error) if error is not None else stopped(self._name, self._why_stopped))

    def _report(self, error: LollmsError) -> None:
        facts = {
            "instance": self._name,
            "signal": self._worker.signal if self._worker else None,
            "exit_code": self._worker.exit_code if self._worker else None,
            "restarts": self.restarts,
        }
        logger.error("%s", error.detail, extra={"facts": facts})
        self._observe(Event(error.code, {**facts, "message": error.message}))

    def _not_yet(self) -> BindingUnavailable:
        return BindingUnavailable(
            f"The worker of '{self._name}' was not ready within {self._limits.start_timeout:g} s.",
            hint="The server's log says what it is doing; workers.start_timeout sets this limit.",
            retry_after=max(1.0, self._restart_at - time.monotonic()),
        )
