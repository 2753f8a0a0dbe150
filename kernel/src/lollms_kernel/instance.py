"""One configured binding instance: what it is made from, its state, and the answers that use it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import msgspec

from .admission import FairQueue
from .config.schema import WorkersConfig
from .contracts import Binding, BindingContext, InstanceStatus
from .errors import BindingUnavailable, LollmsError, Unavailable
from .interrupt import Interrupt
from .workers.faults import as_lollms_error

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 10.0
INTERRUPT_TIMEOUT = 10.0
"""Seconds that an interrupted answer may take to let go of its binding."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance is made from; equal sources make equal instances."""

    type_name: str
    settings: dict[str, Any] | None
    """None: they cannot be read, for the reason that `problem` tells."""
    problem: str | None = None
    hint: str | None = None
    where: str
    """The file, for errors."""
    context: BindingContext
    workers: WorkersConfig
    queue_timeout: float

    def __repr__(self) -> str:
        """Without the settings, which hold secrets."""
        return f"Source({self.where!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich's tracebacks, which do not ask `__repr__`."""
        return [("where", self.where)]


class Instance:
    """One configured binding: its object, its queue, its state and the answers that use it."""

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self.source = source
        self.type_name = source.type_name
        self.settings: dict[str, Any] = {"type": source.type_name}
        """Settings as listings show them, without secrets."""
        self.state: Literal["ready", "starting", "failed"] = "starting"
        self.error: LollmsError | None = None
        self.binding: Binding | None = None
        self.queue: FairQueue | None = None
        self._users: list[Interrupt] = []
        self._idle = asyncio.Event()
        self._idle.set()

    def fail(self, error: LollmsError) -> None:
        """Note why it cannot serve."""
        self.state, self.error = "failed", error
        logger.error("binding %s (%s): %s", self.name, self.type_name, error.detail)

    def status(self) -> InstanceStatus:
        """What listings show."""
        return InstanceStatus(
            name=self.name,
            type=self.type_name,
            state=self.state,
            settings=self.settings,
            error=self.error.message if self.error else None,
            hint=self.error.hint if self.error else None,
        )

    def ready(self) -> Binding:
        """The binding. Raises BindingUnavailable with the reason."""
        if self.binding is None or self.state == "failed":
            reason = self.error.message if self.error else "It is still starting."
            raise BindingUnavailable(
                f"Binding instance '{self.name}' not available or failed to load. {reason}",
                hint=self.error.hint if self.error else "Try again in a moment.",
            )
        return self.binding

    @contextmanager
    def used_by(self, interrupt: Interrupt) -> Iterator[Binding]:
        """The binding; it is not closed while somebody is inside, but for the bounds that `retire` sets."""
        binding = self.ready()
        self._users.append(interrupt)
        self._idle.clear()
        try:
            yield binding
        finally:
            self._users.remove(interrupt)
            if not self._users:
                self._idle.set()

    async def retire(self, grace: float) -> None:
        """Let running answers end within `grace` seconds, interrupt those that do not, then close the binding."""
        try:
            if not await self._is_idle(grace):
                for interrupt in list(self._users):
                    interrupt.trip(
                        Unavailable(
                            f"Binding instance '{self.name}' was changed or removed while it answered.",
                            hint="Send the request again.",
                        )
                    )
                await self._is_idle(INTERRUPT_TIMEOUT)
        finally:
            await self.close()

    async def close(self) -> None:
        """Give the binding back, within ten seconds."""
        if self.binding is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.binding.close()
        except Exception as error:  # closing goes on with the others; the reason is logged
            logger.warning("binding %s did not close cleanly: %s", self.name, as_lollms_error(error).detail)

    async def _is_idle(self, timeout: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        return self._idle.is_set()
