"""Finds out that a worker hangs: no sign of life, or nothing for a call that somebody waits for.

Two kinds of life are told apart. That the event loop turns is said by whatever arrives, and by the answer to a ping if
nothing else does; it says nothing of the engine, whose threads may be stuck for ever. That the engine gets on is said
by the chunks of a stream, and by the pulse that comes with that answer where the binding has one (`Binding.pulse`):
then requests may wait for each other, load or draw for longer than `stall_timeout`, and take as long to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from .link import Link

if TYPE_CHECKING:
    from ..config.schema import WorkersConfig


class Watchdog:
    """Pings a worker every `heartbeat_interval` and calls `condemn(reason)`, once, when it hangs."""

    def __init__(self, link: Link, limits: WorkersConfig, condemn: Callable[[str], None]) -> None:
        self._link = link
        self._limits = limits
        self._condemn = condemn
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0
        self._missed = 0

    def start(self) -> None:
        """Begin to watch."""
        self._heard = self._link.received
        self._missed = 0
        self._ping()

    def stop(self) -> None:
        """Look away."""
        if self._timer is not None:
            self._timer.cancel()

    def _ping(self) -> None:
        self._link.ping()
        self._timer = asyncio.get_running_loop().call_later(self._limits.heartbeat_interval, self._look)

    def _look(self) -> None:
        # Silence is counted in looks and not in seconds: a server that was suspended itself accuses nobody.
        self._missed = self._missed + 1 if self._link.received == self._heard else 0
        self._heard = self._link.received
        silence = self._missed * self._limits.heartbeat_interval
        waited, method = self._link.longest_wait()
        if silence >= self._limits.heartbeat_timeout:
            self._condemn(f"gave no sign of life for {silence:g} s")
        elif waited > self._limits.stall_timeout:
            self._condemn(f"gave nothing for '{method}' for {waited:.0f} s")
        else:
            self._ping()
