"""Server-sent events as values of known types, with the vendor's client doing the talking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lollms_kernel.errors import InvalidRequest

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream

T = TypeVar("T")

HEAVY = 1 << 20
"""Bytes of media from which on bodies are made in a thread, to keep the event loop free."""


File = tuple[str, tuple[str, bytes, str]]
"""The name of a field, and name, content and type of the file in it."""


class Form(msgspec.Struct, frozen=True):
    """A body with files."""

    fields: dict[str, Any]
    files: list[File]


async def encode(body: dict[str, Any], media_size: int = 0) -> bytes:
    """A body as JSON. Raises InvalidRequest for text that is none."""
    try:
        if media_size < HEAVY:
            return msgspec.json.encode(body)
        return await asyncio.to_thread(msgspec.json.encode, body)
    except UnicodeEncodeError:
        raise InvalidRequest(
            "A text holds half a character (a lone surrogate).", hint="Send valid Unicode."
        ) from None


async def open_events(client: AsyncOpenAI, path: str, asked: bytes | Form, kind: type[T]) -> AsyncIterator[T]:
    """The events that a request is answered with; an answer in one piece counts as one event.

    Closing what this gives closes the connection. Events are read as plain values and checked here: building the
    library's models of them costs a hundred times as much, and does not check what similar services send.
    """
    from openai import AsyncStream

    body: dict[str, Any] = {"content": asked}
    if isinstance(asked, Form):
        headers = {"Content-Type": "multipart/form-data"}
        body = {"body": asked.fields, "files": asked.files, "options": {"headers": headers}}
    stream = await client.post(path, cast_to=object, **body, stream=True, stream_cls=AsyncStream[object])
    return _events(stream, kind)


async def _events(stream: AsyncStream[object], kind: type[T]) -> AsyncIterator[T]:
    async with stream:
        if "json" in stream.response.headers.get("content-type", ""):
            yield msgspec.json.decode(await stream.response.aread(), type=kind)
            return
        async for event in stream:
            if isinstance(event, dict):  # FastGPT tells of its workflow in lists
                yield msgspec.convert(event, kind)
