"""Many streams at once, and streams that are left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from lollms_binding_openai import DalleBinding, OpenAIBinding
from lollms_binding_openai.service import ServiceBinding
from lollms_kernel.testing.fakes import stalled
from lollms_kernel.testing.fakes.openai import FakeOpenAI
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Message

Open = Callable[..., Awaitable[Any]]
Ask = Callable[..., Awaitable[list[Chunk]]]

TRIES = 5


def request(prompt: str, **fields: Any) -> GenerateRequest:
    fields.setdefault("model", "gpt-4o-mini")
    return GenerateRequest(id="r", messages=(Message("user", prompt),), **fields)


async def test_cancelling_closes_the_request_at_the_service_within_200_ms(
    binding: OpenAIBinding, fake: FakeOpenAI
) -> None:
    """The best of a few tries counts: a busy machine may be late, a design that waits always is."""
    took = []
    for _ in range(TRIES):
        fake.faults.append(stalled(3, "/chat"))
        begun = asyncio.Event()

        async def consume(begun: asyncio.Event = begun) -> None:
            async with aclosing(binding.generate(request("one two three"))) as chunks:
                async for _ in chunks:
                    begun.set()

        task = asyncio.create_task(consume())
        await asyncio.wait_for(begun.wait(), 30)
        cancelled = time.monotonic()
        task.cancel()
        await asyncio.wait([task])
        received = fake.requests_to("/chat")[-1]
        await fake.until(received.left)
        assert received.left_at is not None
        took.append(received.left_at - cancelled)

    assert min(took) < 0.2


async def test_closing_between_two_pieces_closes_the_request_too(
    binding: OpenAIBinding, fake: FakeOpenAI
) -> None:
    fake.faults.append(stalled(3, "/chat"))

    async with aclosing(binding.generate(request("one two three"))) as chunks:
        await anext(chunks)

    await fake.until(fake.requests_to("/chat")[-1].left)


@pytest.mark.parametrize(
    ("kind", "path", "fields"),
    [
        (OpenAIBinding, "/chat", {}),
        (OpenAIBinding, "/speech", {"generation_type": "tts", "model": "tts-1"}),
        (DalleBinding, "/images", {"generation_type": "tti", "model": "dall-e-3"}),
    ],
)
async def test_leaving_before_the_first_piece_closes_the_request(
    kind: type[ServiceBinding], path: str, fields: dict[str, Any], fake: FakeOpenAI, open_binding: Open
) -> None:
    binding = await open_binding(kind, fake)
    fake.faults.append(stalled(0, path))
    task = asyncio.create_task(anext(binding.generate(request("one", **fields))))
    received = await fake.request_to(path)
    task.cancel()
    await asyncio.wait([task])

    await fake.until(received.left)


async def test_fifty_streams_at_once_do_not_mix(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI, text_of: Callable[[list[Chunk]], str]
) -> None:
    fake.frame_delay = 0.001
    prompts = [f"stream {number}" + f" n{number}" * 20 for number in range(50)]

    answers = await asyncio.gather(*(ask(binding, prompt) for prompt in prompts))

    assert [text_of(chunks) for chunks in answers] == prompts
    assert all(isinstance(chunks[-1], Finished) for chunks in answers)


async def test_each_request_has_its_own_model_and_changes_nobody_else_s(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    fake.frame_delay = 0.001
    models = ["gpt-4o", "gpt-5-mini", "gpt-4o-mini"] * 4

    await asyncio.gather(*(ask(binding, f"for {model}", model=model) for model in models))

    pairs = {(r.json["model"], r.json["messages"][0]["content"]) for r in fake.requests_to("/chat")}
    assert pairs == {(model, f"for {model}") for model in models}
    assert (await binding.get_model_info()).name == "gpt-4o-mini"
