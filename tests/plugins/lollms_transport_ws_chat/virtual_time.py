"""An event loop whose clock jumps to the next timer, so that minutes of conversation take milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """Never sleeps: where nothing is ready, the time of the earliest timer has come."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self._now

    def jump(self) -> None:
        scheduled = [timer for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert scheduled, "everybody waits and nothing is going to happen"
        self._now = max(self._now, min(timer.when() for timer in scheduled))


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout != 0:
            self._loop.jump()
        return ready


def on_virtual_time(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it from the time 0 on."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
