"""A fake OpenAI on a real socket, and bindings that talk to it through the vendor's own library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from lollms_binding_openai import DalleBinding, OpenAIBinding
from lollms_binding_openai.service import ServiceBinding
from lollms_kernel.contracts import Binding
from lollms_kernel.testing import make_binding
from lollms_kernel.testing.fakes.openai import FakeOpenAI
from lollms_kernel.types import Chunk, GenerateRequest, Message, TextDelta
from lollms_kernel.upstream import Pauses

Open = Callable[..., Awaitable[Any]]
Ask = Callable[..., Awaitable[list[Chunk]]]


@pytest.fixture(autouse=True)
def no_secrets_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the developer has no part in tests."""
    for name in ("API_KEY", "BASE_URL", "ORG_ID", "PROJECT_ID", "CUSTOM_HEADERS", "ADMIN_KEY"):
        monkeypatch.delenv(f"OPENAI_{name}", raising=False)


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    """An OpenAI with a handful of models that repeat the last user turn."""
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def open_binding() -> AsyncIterator[Open]:
    """Opens a binding of a type at a fake with these settings; retries do not pause."""
    opened: list[Binding] = []

    async def no_pause(_seconds: float) -> None:
        pass

    async def make(kind: type[ServiceBinding], fake: FakeOpenAI, **settings: Any) -> Binding:
        binding = make_binding(kind, {"base_url": fake.base_url, **settings})
        assert isinstance(binding, ServiceBinding)
        binding.pauses = Pauses(sleep=no_pause)
        await binding.open()
        opened.append(binding)
        return binding

    yield make
    for binding in opened:
        await binding.close()


@pytest.fixture
async def binding(fake: FakeOpenAI, open_binding: Open) -> OpenAIBinding:
    """An open `openai_binding` with default settings."""
    found: OpenAIBinding = await open_binding(OpenAIBinding, fake)
    return found


@pytest.fixture
async def painter(fake: FakeOpenAI, open_binding: Open) -> DalleBinding:
    """An open `dalle_binding` with default settings."""
    found: DalleBinding = await open_binding(DalleBinding, fake)
    return found


@pytest.fixture
def ask() -> Ask:
    """Asks a binding and gives every chunk."""

    async def collect(binding: Binding, prompt: str = "Hello there", **fields: Any) -> list[Chunk]:
        fields.setdefault("model", "gpt-4o-mini")
        fields.setdefault("messages", (Message("user", prompt),))
        async with aclosing(binding.generate(GenerateRequest(id="req1", **fields))) as chunks:
            return [chunk async for chunk in chunks]

    return collect


@pytest.fixture
def text_of() -> Callable[[list[Chunk]], str]:
    """The visible text of an answer."""
    return lambda chunks: "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))
