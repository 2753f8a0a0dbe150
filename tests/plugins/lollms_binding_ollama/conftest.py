"""A fake Ollama on a real socket, and bindings that talk to it through the vendor's own library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from lollms_binding_ollama import OllamaBinding
from lollms_kernel.testing import make_binding
from lollms_kernel.testing.fakes.ollama import FakeOllama
from lollms_kernel.types import Chunk, GenerateRequest, Message, TextDelta
from lollms_kernel.upstream import Pauses

Ask = Callable[..., Awaitable[list[Chunk]]]


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    """An Ollama with a handful of models that repeat the last user turn."""
    with FakeOllama() as server:
        yield server


@pytest.fixture
async def opened(fake: FakeOllama) -> AsyncIterator[Callable[..., Awaitable[OllamaBinding]]]:
    """Call it with settings to get an open binding; retries do not pause."""
    bindings: list[OllamaBinding] = []

    async def no_pause(_seconds: float) -> None:
        pass

    async def make(**settings: Any) -> OllamaBinding:
        binding = make_binding(OllamaBinding, {"host": fake.url, **settings})
        assert isinstance(binding, OllamaBinding)
        binding.upstream.pauses = Pauses(sleep=no_pause)
        await binding.open()
        bindings.append(binding)
        assert binding._greeting is not None
        await binding._greeting
        fake.received.clear()
        return binding

    yield make
    for binding in bindings:
        await binding.close()


@pytest.fixture
async def binding(opened: Callable[..., Awaitable[OllamaBinding]]) -> OllamaBinding:
    """An open binding with default settings."""
    return await opened()


@pytest.fixture
def ask() -> Ask:
    """Asks a binding and gives every chunk."""

    async def collect(binding: OllamaBinding, prompt: str = "Hello there", **fields: Any) -> list[Chunk]:
        fields.setdefault("model", "llama3.2:latest")
        fields.setdefault("messages", (Message("user", prompt),))
        request = GenerateRequest(id="req1", **fields)
        async with aclosing(binding.generate(request)) as chunks:
            return [chunk async for chunk in chunks]

    return collect


@pytest.fixture
def text_of() -> Callable[[list[Chunk]], str]:
    """The visible text of an answer."""
    return lambda chunks: "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))
