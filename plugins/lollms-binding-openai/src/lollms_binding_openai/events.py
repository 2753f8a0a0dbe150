"""Server-sent events as values of known types, with the vendor's client doing the talking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")

Files = list[tuple[str, tuple[str, bytes, str]]]
"""Form fields, each with name, content and type of a file."""


async def open_events(
    client: AsyncOpenAI, path: str, body: dict[str, Any], kind: type[T], files: Files | None = None
) -> AsyncIterator[T]:
    """The events that a request is answered with; an answer in one piece counts as one event.

    Closing what this gives closes the connection. Events are read as plain values and checked here: building the
    library's models of them costs a hundred times as much, and does not check what similar services send.
    """
    from openai import AsyncStream

    options: Any = {"headers": {"Content-Type": "multipart/form-data"}} if files else {}
    stream = await client.post(
        path,
        cast_to=object,
        body=body,
        files=files,
        options=options,
        stream=True,
        stream_cls=AsyncStream[object],
    )
    return _events(stream, kind)


async def _events(stream: Any, kind: type[T]) -> AsyncIterator[T]:
    async with stream:
        if "json" in stream.response.headers.get("content-type", ""):
            yield msgspec.json.decode(await stream.response.aread(), type=kind)
            return
        async for event in stream:
            if isinstance(event, dict):  # FastGPT tells of its workflow in lists
                yield msgspec.convert(event, kind)
