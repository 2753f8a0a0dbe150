"""From an order to its answer, whole or as events, in the shape of one endpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from lollms_kernel.types import Chunk

from .call import Call
from .choice import Choice
from .events import events
from .merge import answers
from .order import Order


class Shape(ABC):
    """How one endpoint words answers. One object serves one answer."""

    ends_with_done = False
    """Whether a stream ends with `[DONE]`."""

    def __init__(self, order: Order) -> None:
        self.order = order

    @abstractmethod
    def whole(self, choices: list[Choice]) -> Any:
        """The answer that is not streamed."""

    @abstractmethod
    def parts(self, choice: Choice, chunk: Chunk) -> Iterable[dict[str, Any]]:
        """The events that tell of a chunk, which `choice` has taken already."""

    def closing(self, choices: list[Choice]) -> Iterable[dict[str, Any]]:
        """Events after the end of all."""
        return ()


async def respond(call: Call, shape: Shape) -> None:
    """Generate and answer."""
    order = shape.order
    choices = [Choice(number) for number in range(len(order.requests))]
    with call.server.activity.working(order.target.instance, choices):
        if order.sampling.stream:
            await _stream(call, shape, choices)
            return
        async with answers(call.kernel, order.requests) as chunks:
            async for number, chunk in chunks:
                choices[number].add(chunk)
    await call.send_json(shape.whole(choices))


async def _stream(call: Call, shape: Shape, choices: list[Choice]) -> None:
    order = shape.order
    async with events(call, order.ping_interval, done=shape.ends_with_done) as told:
        async with answers(call.kernel, order.requests) as chunks:
            async for number, chunk in chunks:
                choice = choices[number]
                choice.add(chunk)
                for part in shape.parts(choice, chunk):
                    await told.send(part)
        for part in shape.closing(choices):
            await told.send(part)
