"""Many streams at once, and streams that are left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from lollms_binding_gemini import GeminiBinding
from lollms_kernel.testing.fakes import stalled
from lollms_kernel.testing.fakes.gemini import FakeGemini
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Message

Ask = Callable[..., Awaitable[list[Chunk]]]
TRIES = 5
STREAM = ":streamGenerateContent"


def request(prompt: str) -> GenerateRequest:
    return GenerateRequest(id="r", model="gemini-2.0-flash", messages=(Message("user", prompt),))


async def test_cancelling_closes_the_request_at_the_service_within_200_ms(
    binding: GeminiBinding, fake: FakeGemini
) -> None:
    """The best of a few tries counts: a busy machine may be late, a design that waits always is."""
    took = []
    for _ in range(TRIES):
        fake.faults.append(stalled(1, STREAM))
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
        received = fake.requests_to(STREAM)[-1]
        await fake.until(received.left)
        assert received.left_at is not None
        took.append(received.left_at - cancelled)

    assert min(took) < 0.2


async def test_closing_a_stream_between_two_pieces_closes_the_request(
    binding: GeminiBinding, fake: FakeGemini
) -> None:
    """The library's own generators would leave the connection open until the garbage collector comes by."""
    fake.faults.append(stalled(2, STREAM))
    chunks = binding.generate(request("one two three"))
    await anext(chunks)
    await chunks.aclose()

    await fake.until(fake.requests_to(STREAM)[-1].left)


async def test_leaving_before_the_first_token_closes_the_request_too(
    binding: GeminiBinding, fake: FakeGemini
) -> None:
    fake.faults.append(stalled(0, STREAM))
    task = asyncio.create_task(anext(binding.generate(request("one"))))
    received = await fake.request_to(STREAM)
    task.cancel()
    await asyncio.wait([task])

    await fake.until(received.left)


async def test_fifty_streams_at_once_do_not_mix(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, text_of: Callable[[list[Chunk]], str]
) -> None:
    fake.frame_delay = 0.001
    prompts = [f"stream {number}" + f" n{number}" * 20 for number in range(50)]

    answers = await asyncio.gather(*(ask(binding, prompt) for prompt in prompts))

    assert [text_of(chunks) for chunks in answers] == prompts
    assert all(isinstance(chunks[-1], Finished) for chunks in answers)


async def test_each_request_has_its_own_model_and_changes_nobody_else_s(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    fake.frame_delay = 0.001
    models = ["gemini-2.0-flash", "gemini-2.5-flash", "gemma-3-27b-it"] * 4

    answers = await asyncio.gather(*(ask(binding, f"for {model}", model=model) for model in models))

    used = [chunks[-1].metadata["model"] for chunks in answers if isinstance(chunks[-1], Finished)]
    assert used == models
    pairs = {
        (r.path.rpartition("/")[2].partition(":")[0], r.json["contents"][0]["parts"][0]["text"])
        for r in fake.requests_to(STREAM)
    }
    assert pairs == {(model, f"for {model}") for model in models}
    assert (await binding.get_model_info()).name == "gemma-3-27b-it"
