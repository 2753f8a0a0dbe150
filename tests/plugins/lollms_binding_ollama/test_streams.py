"""Many streams at once, and streams that are left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from lollms_binding_ollama import OllamaBinding
from lollms_kernel.testing.fakes import stalled
from lollms_kernel.testing.fakes.ollama import FakeOllama
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Message

Ask = Callable[..., Awaitable[list[Chunk]]]

TRIES = 5


def request(prompt: str) -> GenerateRequest:
    return GenerateRequest(id="r", model="llama3.2:latest", messages=(Message("user", prompt),))


async def test_cancelling_closes_the_request_at_ollama_within_200_ms(
    binding: OllamaBinding, fake: FakeOllama
) -> None:
    """The best of a few tries counts: a busy machine may be late, a design that waits always is."""
    took = []
    for _ in range(TRIES):
        fake.faults.append(stalled(1, "/api/chat"))
        begun = asyncio.Event()

        async def consume(begun: asyncio.Event = begun) -> None:
            async with aclosing(binding.generate(request("one two"))) as chunks:
                async for _ in chunks:
                    begun.set()

        task = asyncio.create_task(consume())
        await asyncio.wait_for(begun.wait(), 30)
        cancelled = time.monotonic()
        task.cancel()
        await asyncio.wait([task])
        received = fake.requests_to("/api/chat")[-1]
        await fake.until(received.left)
        assert received.left_at is not None
        took.append(received.left_at - cancelled)

    assert min(took) < 0.2


async def test_leaving_before_the_first_token_closes_the_request_too(
    binding: OllamaBinding, fake: FakeOllama
) -> None:
    fake.faults.append(stalled(0, "/api/chat"))
    task = asyncio.create_task(anext(binding.generate(request("one"))))
    received = await fake.request_to("/api/chat")
    task.cancel()
    await asyncio.wait([task])

    await fake.until(received.left)


async def test_fifty_streams_at_once_do_not_mix(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama, text_of: Callable[[list[Chunk]], str]
) -> None:
    fake.frame_delay = 0.001
    prompts = [f"stream {number}" + f" n{number}" * 20 for number in range(50)]

    answers = await asyncio.gather(*(ask(binding, prompt) for prompt in prompts))

    assert [text_of(chunks) for chunks in answers] == prompts
    assert all(isinstance(chunks[-1], Finished) for chunks in answers)


async def test_each_request_has_its_own_model_and_changes_nobody_else_s(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    fake.frame_delay = 0.001
    models = ["llama3.2", "qwen3:4b", "llava:7b"] * 4

    answers = await asyncio.gather(*(ask(binding, f"for {model}", model=model) for model in models))

    used = [chunks[-1].metadata["model"] for chunks in answers if isinstance(chunks[-1], Finished)]
    assert used == ["llama3.2:latest", "qwen3:4b", "llava:7b"] * 4
    pairs = {(r.json["model"], r.json["messages"][0]["content"]) for r in fake.requests_to("/api/chat")}
    assert pairs == {
        ("llama3.2:latest", "for llama3.2"),
        ("qwen3:4b", "for qwen3:4b"),
        ("llava:7b", "for llava:7b"),
    }
    assert (await binding.get_model_info()).name == "llama3.2:latest"


async def test_connections_are_used_again(binding: OllamaBinding, ask: Ask, fake: FakeOllama) -> None:
    for _ in range(3):
        await ask(binding)

    assert len({request.client for request in fake.requests_to("/api/chat")}) == 1
