"""The transport `wingman`: its sides side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar

from lollms_kernel.contracts import ErrorAnswer, Health, Kernel, Listener, Transport, TransportSettings
from lollms_kernel.errors import LollmsError

from .control.side import ControlSide
from .inference.side import InferenceSide
from .settings import WingmanSettings
from .side import Side

SIDES: tuple[type[Side], ...] = (InferenceSide, ControlSide)


class WingmanTransport(Transport):
    """The llama-server and OpenAI APIs on the main port and a port of their own, and Wingman's control port."""

    name: ClassVar[str] = "wingman"
    Settings: ClassVar[type[TransportSettings]] = WingmanSettings

    def __init__(self, kernel: Kernel, settings: WingmanSettings) -> None:
        super().__init__(kernel, settings)
        self.sides: tuple[Side, ...] = tuple(side(kernel, settings) for side in SIDES)
        for side in self.sides:
            side.meet([other for other in self.sides if other is not side])
        self._opened = AsyncExitStack()

    @property
    def prefixes(self) -> Sequence[str]:
        """See `contracts.Transport.prefixes`."""
        return [prefix for side in self.sides for prefix in side.prefixes]

    @property
    def open_paths(self) -> Sequence[str]:
        """See `contracts.Transport.open_paths`."""
        return [path for side in self.sides for path in side.open_paths]

    def route_handlers(self) -> Sequence[Any]:
        """See `contracts.Transport.route_handlers`."""
        return [handler for side in self.sides for handler in side.route_handlers()]

    def listeners(self) -> Sequence[Listener]:
        """See `contracts.Transport.listeners`."""
        return [listener for side in self.sides for listener in side.listeners()]

    def error_answer(self, error: LollmsError, path: str) -> ErrorAnswer:
        """See `contracts.Transport.error_answer`."""
        fitting = [
            (len(prefix), number)
            for number, side in enumerate(self.sides)
            for prefix in side.prefixes
            if path.startswith(prefix)
        ]
        return self.sides[max(fitting)[1] if fitting else 0].error_answer(error, path)

    async def health(self, query: Mapping[str, str]) -> Health:
        """See `contracts.Transport.health`."""
        told = [await side.health(query) for side in self.sides]
        facts = {name: value for health in told for name, value in health.facts.items()}
        return Health(facts, max(health.status for health in told))

    async def open(self) -> None:
        """Open the sides in order."""
        for side in self.sides:
            await side.open()
            self._opened.push_async_callback(side.close)

    async def drain(self, grace: float) -> None:
        """See `contracts.Transport.drain`."""
        await asyncio.gather(*(side.drain(grace) for side in self.sides))

    async def close(self) -> None:
        """Close them the other way round."""
        await self._opened.aclose()
