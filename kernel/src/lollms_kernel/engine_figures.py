"""Tells observers what engines do: some seconds after an engine was used, its figures become an event `engine`.

Nothing is asked of an engine that rests, and none is started for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from .contracts import HasEngine
from .types import Event

if TYPE_CHECKING:
    from .contracts import Binding

logger = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two events of one engine, and from its use to the event."""
ASK_TIMEOUT = 5.0


class EngineFigures:
    """Call `used` when a binding has worked; between `open` and `close` its figures are told."""

    def __init__(self, observe: Callable[[Event], None], interval: float | None = None) -> None:
        self._observe = observe
        self._interval = INTERVAL if interval is None else interval
        self._used: dict[str, Binding] = {}
        self._wake = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    def used(self, binding: Binding) -> None:
        """Note that there is something new to tell of this binding."""
        if isinstance(binding, HasEngine):
            self._used[binding.name] = binding
            self._wake.set()

    def open(self) -> None:
        """Begin to tell."""
        self._telling = asyncio.create_task(self._tell())

    async def close(self) -> None:
        """End it."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])

    async def _tell(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._interval)
            self._wake.clear()
            used, self._used = self._used, {}
            for name, binding in used.items():
                await self._tell_one(name, binding)

    async def _tell_one(self, name: str, binding: Binding) -> None:
        if getattr(binding, "pid", 0) is None:
            return  # its worker has ended meanwhile
        assert isinstance(binding, HasEngine)
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                figures = await binding.engine_metrics(None)
        except Exception as error:  # whatever an engine says: the next use tells again
            logger.debug("no figures of %s: %s", name, error)
            return
        self._observe(Event("engine", {"instance": name, **figures}))
