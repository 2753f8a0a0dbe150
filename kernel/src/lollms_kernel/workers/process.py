"""One worker process, from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import BindingUnavailable, LollmsError, WorkerCrashed, WorkerHung
from ..logs import JsonFormatter
from .faults import Fault
from .frames import FrameError
from .link import Link
from .methods import Opening
from .watchdog import Watchdog

if TYPE_CHECKING:
    from ..config.schema import WorkersConfig

logger = logging.getLogger(__name__)

CLOSE_GRACE = 2.0
"""Seconds for a worker to close its binding when it is stopped."""
TERM_GRACE = 1.0
KILL_GRACE = 5.0
_EXIT_GRACE = 2.0
"""Seconds to exit after closing the connection."""
_DUMP_GRACE = 0.2
"""Seconds for a hung worker to write its stacks into the log."""

_NOT_FOR_WORKERS = {"LOLLMS_ENCRYPTION_KEY"}
_HINTS = {
    "SIGKILL": "Somebody killed it: most often the system, out of memory. A smaller model or context needs less.",
    "SIGILL": "The engine was built for another processor.",
}


class Worker:
    """One process: `start` it once, then `wait` for its end or `stop` it.

    `ended(fault)` is called when it has ended, before anybody who waits for it is told so.
    """

    def __init__(self, name: str, target: str, limits: WorkersConfig, ended: Callable[[Fault], None]) -> None:
        self.name = name
        self.link = Link(self.condemn)
        self.signal: str | None = None
        """What it died of, e.g. SIGSEGV."""
        self.exit_code: int | None = None
        self._target = target
        self._limits = limits
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[Fault] | None = None
        self._verdict: Fault | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._watchdog = Watchdog(self.link, limits, self.condemn)

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def start(self, opening: Opening) -> None:
        """Start the process and open its binding.

        Raises what `open` raised, WorkerCrashed or BindingUnavailable; nothing is left behind then, nor after
        being cancelled.
        """
        try:
            await self._spawn()
            seconds = self._limits.start_timeout
            late = f"Worker '{self.name}' was not ready within {seconds:g} s."
            hint = "See its log; workers.start_timeout sets this limit."
            deadline = self._later(seconds, self._end, Fault.of(BindingUnavailable(late, hint=hint)))
            await self.link.begin("open", opening).value()
            if self._watching is not None and self._watching.done():
                raise self._watching.result().error()
        except BaseException:
            await self._abandon()
            raise
        deadline.cancel()
        self._watchdog.start()

    async def wait(self) -> Fault:
        """Why the process ended, once it has and everything under way has been told so."""
        assert self._watching is not None
        return await asyncio.shield(self._watching)

    async def stop(self, why: str) -> None:
        """End the process: by asking, then by SIGTERM, then by SIGKILL, each for a bounded time.

        Whatever is under way then ends with an error that says why."""
        assert self._watching is not None
        self._watchdog.stop()
        if self._verdict is None:
            self._verdict = stopped(self.name, why)
            with suppress(LollmsError):  # it may have died meanwhile
                self.link.begin("close")
        for seconds, then in (
            (CLOSE_GRACE, signal.SIGTERM),
            (TERM_GRACE, signal.SIGKILL),
            (KILL_GRACE, None),
        ):
            done, _ = await asyncio.wait([self._watching], timeout=seconds)
            if done:
                return
            if then is not None:
                self._signal(then)
        logger.error("worker %s: process %s does not die", self.name, self.pid)

    def condemn(self, reason: str) -> None:
        """Kill it because it does not do what it must; whoever waits for it gets WorkerHung with the reason."""
        hint = "Try again: it starts anew. Its stacks are in the server's log."
        self._end(Fault.of(WorkerHung(f"Worker '{self.name}' {reason} and was killed.", hint=hint)))

    # --- start and end ----------------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        if sys.platform == "win32":
            raise BindingUnavailable("Worker processes need Linux or macOS.", hint="On Windows use WSL.")
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                await self._loop.create_unix_connection(lambda: self.link.channel, sock=ours)
                self.link.closed.add_done_callback(
                    lambda _: self._later(_EXIT_GRACE, self._signal, signal.SIGKILL)
                )
                self._process = await asyncio.create_subprocess_exec(
                    *self._command(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    env={name: value for name, value in os.environ.items() if name not in _NOT_FOR_WORKERS},
                    start_new_session=True,  # Ctrl-C stays with the server; helpers of the engine can be ended too
                )
        except OSError as error:
            raise BindingUnavailable(f"Worker '{self.name}' could not be started: {error}.") from error
        self._watching = asyncio.create_task(self._watch(self._process), name=f"watch worker {self.name}")

    def _command(self, fd: int) -> list[str]:
        root = logging.getLogger()
        json = any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers)
        return [
            sys.executable,
            "-P",  # whatever lies in the working directory is none of our modules
            "-m",
            "lollms_kernel.workers.child",
            f"--fd={fd}",
            f"--name={self.name}",
            f"--target={self._target}",
            f"--log-level={root.level}",
            f"--log-style={'json' if json else 'text'}",
        ]

    async def _watch(self, process: asyncio.subprocess.Process) -> Fault:
        status = await process.wait()
        self._watchdog.stop()
        for timer in self._timers:
            timer.cancel()
        _kill_group(process.pid)
        await asyncio.wait([self.link.closed], timeout=_EXIT_GRACE)  # its last words may still be unread
        self.link.channel.abort()
        garbage = await self.link.closed
        if status < 0:
            self.signal = _signal_name(-status)
        else:
            self.exit_code = status
        fault = self._verdict or self._post_mortem(garbage)
        self._ended(fault)
        self.link.fail(fault)
        return fault

    def _post_mortem(self, garbage: Exception | None) -> Fault:
        how = f"died by {self.signal}" if self.signal else f"ended by itself with exit code {self.exit_code}"
        if isinstance(garbage, FrameError):
            how += f" after sending garbage ({garbage})"
        hint = _HINTS.get(
            self.signal or "", "Try again: it starts anew. The server's log has its last words."
        )
        return Fault.of(WorkerCrashed(f"Worker '{self.name}' {how}.", hint=hint))

    async def _abandon(self) -> None:
        if self._watching is None:
            self.link.channel.abort()
            return
        self._verdict = self._verdict or stopped(self.name, "it did not start")
        self._signal(signal.SIGKILL)
        await asyncio.wait([self._watching], timeout=KILL_GRACE)

    def _end(self, fault: Fault) -> None:
        if self._verdict is None:
            self._verdict = fault
            if self._process is not None and self._process.returncode is None:
                self._process.send_signal(signal.SIGUSR1)  # faulthandler writes the stacks
            self._later(_DUMP_GRACE, self._signal, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        if number is signal.SIGKILL:
            _kill_group(self._process.pid)
        else:
            self._process.send_signal(number)

    def _later(
        self, seconds: float, action: Callable[..., object], *arguments: object
    ) -> asyncio.TimerHandle:
        timer = self._loop.call_later(seconds, action, *arguments)
        self._timers.append(timer)
        return timer


def stopped(name: str, why: str) -> Fault:
    """What is told to those who wait for a worker that is stopped on purpose."""
    message = f"The worker of '{name}' was stopped: {why}."
    return Fault.of(BindingUnavailable(message, hint="Send the request again.", retry_after=1.0))


def _kill_group(pid: int) -> None:
    """End the process and the helpers that it started (it leads a session of its own)."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
