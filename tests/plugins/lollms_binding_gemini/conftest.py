"""A fake Gemini on a real socket, and bindings that talk to it through Google's own library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from lollms_binding_gemini import GeminiBinding
from lollms_kernel.contracts import Binding
from lollms_kernel.testing import make_binding
from lollms_kernel.testing.fakes.gemini import FakeGemini
from lollms_kernel.types import Chunk, GenerateRequest, Message, TextDelta
from lollms_kernel.upstream import Pauses

Ask = Callable[..., Awaitable[list[Chunk]]]


@pytest.fixture
def fake() -> Iterator[FakeGemini]:
    """A Gemini with a handful of models that repeat the last user turn."""
    with FakeGemini() as server:
        yield server


@pytest.fixture
async def opened(fake: FakeGemini) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Call it with settings, and a type other than GeminiBinding, to get an open binding; retries do not pause."""
    bindings: list[Binding] = []

    async def no_pause(_seconds: float) -> None:
        pass

    async def make(kind: Any = GeminiBinding, **settings: Any) -> Any:
        binding: Any = make_binding(kind, {"base_url": fake.url, "google_api_key": "key", **settings})
        binding.upstream.pauses = Pauses(sleep=no_pause)
        await binding.open()
        bindings.append(binding)
        await binding._greeting
        fake.received.clear()
        return binding

    yield make
    for binding in bindings:
        await binding.close()


@pytest.fixture
async def binding(opened: Callable[..., Awaitable[GeminiBinding]]) -> GeminiBinding:
    """An open binding with default settings."""
    return await opened()


@pytest.fixture
def ask() -> Ask:
    """Asks a binding and gives every chunk."""

    async def collect(binding: Binding, prompt: str = "Hello there", **fields: Any) -> list[Chunk]:
        fields.setdefault("model", "gemini-2.5-flash")
        fields.setdefault("messages", (Message("user", prompt),))
        request = GenerateRequest(id="req1", **fields)
        async with aclosing(binding.generate(request)) as chunks:
            return [chunk async for chunk in chunks]

    return collect


@pytest.fixture
def text_of() -> Callable[[list[Chunk]], str]:
    """The visible text of an answer."""
    return lambda chunks: "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))
