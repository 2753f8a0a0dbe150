"""One way to a service: every call gets its time limits, its retries and errors that can be understood."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from ..errors import LollmsError
from .failures import Service
from .pacing import anything, paced
from .retries import SYSTEM, Pauses, retrying
from .settings import UpstreamSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")

Explain = Callable[[Exception], LollmsError | None]


def _unknown(_error: Exception) -> None:
    return None


class Upstream:
    """Asks a service on behalf of one binding instance."""

    def __init__(
        self,
        service: Service,
        limits: UpstreamSettings,
        explain: Explain = _unknown,
        pauses: Pauses = SYSTEM,
    ) -> None:
        self.service = service
        self.limits = limits
        self.pauses = pauses
        self._explain = explain

    def explain(self, error: Exception) -> LollmsError:
        """The error to show instead of `error`."""
        if isinstance(error, LollmsError):
            return error
        # Never its text, which may hold addresses and what the service wrote.
        logger.debug("%s: %s.%s", self.service, type(error).__module__, type(error).__qualname__)
        return self._explain(error) or self.service.explain(error)

    async def ask(self, call: Callable[[], Awaitable[T]], *, within: float | None = None) -> T:
        """The one answer of `call`, each try limited to `within` seconds (by default `first_token_timeout`)."""
        limit = self.limits.first_token_timeout if within is None else within

        async def attempt() -> T:
            try:
                async with asyncio.timeout(limit) as timer:
                    return await call()
            except Exception as error:  # whatever the vendor's library raises is turned into an error of ours
                if timer.expired():
                    raise self.service.too_slow("first_token_timeout", limit) from None
                raise self.explain(error) from None

        return await retrying(
            attempt, retries=self.limits.max_retries, pauses=self.pauses, what=str(self.service)
        )

    async def stream(
        self, start: Callable[[], Awaitable[AsyncIterator[T]]], *, begun: Callable[[T], bool] = anything
    ) -> AsyncGenerator[T, None]:
        """The items of the stream that `start` opens; opened anew where it fails before its first item.

        `begun` tells the first item of the answer proper from greetings (see `paced`). Closing this closes the
        stream, and with it the connection.
        """

        def paced_anew() -> AsyncGenerator[T, None]:
            limits = self.limits
            return paced(
                start,
                first=limits.first_token_timeout,
                idle=limits.idle_timeout,
                begun=begun,
                what=str(self.service),
            )

        async def begin() -> tuple[AsyncGenerator[T, None], list[T]]:
            items = paced_anew()
            try:
                return items, [await anext(items)]
            except StopAsyncIteration:
                return items, []
            except Exception as error:  # as in `ask`
                raise self.explain(error) from None

        items, head = await retrying(
            begin, retries=self.limits.max_retries, pauses=self.pauses, what=str(self.service)
        )
        async with aclosing(items):
            try:
                for item in head:
                    yield item
                async for item in items:
                    yield item
            except Exception as error:  # as in `ask`
                raise self.explain(error) from None
