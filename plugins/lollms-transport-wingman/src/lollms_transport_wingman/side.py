"""One half of the protocol: what the transport asks each of its sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lollms_kernel.contracts import ErrorAnswer, Health, Kernel, Listener
from lollms_kernel.errors import LollmsError

from .active import Active
from .settings import WingmanSettings


class Side:
    """Inference or control. The transport puts together what its sides say; see `contracts.Transport`."""

    def __init__(self, kernel: Kernel, settings: WingmanSettings) -> None:
        self.kernel = kernel
        self.settings = settings

    def meet(self, others: Sequence[Side]) -> None:
        """Called once, with the other sides."""

    def follow(self, active: Active) -> None:
        """Serve the model that is active where a request names none."""

    @property
    def prefixes(self) -> Sequence[str]:
        """Path prefixes on the main port whose errors of the gate get this side's shape."""
        return ()

    @property
    def open_paths(self) -> Sequence[str]:
        """Paths on the main port that need no key. Those of a port of its own are in `Listener.rules`."""
        return ()

    def route_handlers(self) -> Sequence[Any]:
        """Litestar route handlers for the main port."""
        return ()

    def listeners(self) -> Sequence[Listener]:
        """Ports of its own."""
        return ()

    def error_answer(self, error: LollmsError, path: str) -> ErrorAnswer:
        """An error of the gate below `prefixes`."""
        raise NotImplementedError

    async def health(self, query: Mapping[str, str]) -> Health:
        """What this side adds to `GET /health` of the main port."""
        return Health()

    async def open(self) -> None:
        """Start what runs beside requests."""

    async def drain(self, grace: float) -> None:
        """The server stops: end connections that would stay."""

    async def close(self) -> None:
        """End it."""
