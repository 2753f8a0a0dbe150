"""Several generations at once as one stream: each chunk with the number of its request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from lollms_kernel.contracts import Kernel
from lollms_kernel.errors import LollmsError, error_from_code
from lollms_kernel.types import Chunk, Failed, Finished, GenerateRequest

AT_ONCE = 16
"""How many of one client's generations run at the same time; the others of the same body follow."""
BUFFERED = 64
"""Chunks that wait for a slow client before the engines have to."""

Numbered = tuple[int, Chunk]


@asynccontextmanager
async def answers(
    kernel: Kernel, requests: Sequence[GenerateRequest], at_once: int = AT_ONCE
) -> AsyncIterator[AsyncIterator[Numbered]]:
    """The chunks of all requests. Iterating raises the error of whichever fails; leaving stops all of them.

    With one request, entering waits for the first chunk and raises what is wrong before it.
    """
    if len(requests) == 1:
        async with kernel.stream(requests[0]) as chunks:
            yield _numbered(chunks)
        return
    queue: asyncio.Queue[Numbered | LollmsError] = asyncio.Queue(BUFFERED)
    places = asyncio.Semaphore(at_once)

    async def run(number: int, request: GenerateRequest) -> None:
        try:
            async with places, kernel.stream(request) as chunks:
                async for chunk in chunks:
                    await queue.put((number, chunk))
        except LollmsError as error:
            await queue.put(error)

    running = [asyncio.create_task(run(number, request)) for number, request in enumerate(requests)]
    try:
        yield _merged(queue, len(requests))
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def _numbered(chunks: AsyncIterator[Chunk]) -> AsyncIterator[Numbered]:
    async for chunk in chunks:
        if isinstance(chunk, Failed):
            raise error_from_code(chunk.code, chunk.message, hint=chunk.hint)
        yield 0, chunk


async def _merged(queue: asyncio.Queue[Numbered | LollmsError], count: int) -> AsyncIterator[Numbered]:
    while count:
        item = await queue.get()
        if isinstance(item, LollmsError):
            raise item
        number, chunk = item
        if isinstance(chunk, Failed):
            raise error_from_code(chunk.code, chunk.message, hint=chunk.hint)
        if isinstance(chunk, Finished):
            count -= 1
        yield number, chunk
