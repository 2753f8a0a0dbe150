"""Stopping the engine: at once, wherever it is, and with nothing left over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_binding_llamacpp.engine import Engine, EngineSpec
from lollms_binding_llamacpp.job import Job, Piece
from lollms_binding_llamacpp.native import Stopped
from lollms_binding_llamacpp.parameters import Sampling
from lollms_binding_llamacpp.pulse import beats
from lollms_kernel.errors import ModelLoadFailed, ShuttingDown
from lollms_kernel.types import GenerateRequest

LONG = 2000
ENDLESS = Sampling(temperature=0)
TWO = Sampling(max_tokens=2)


@pytest.fixture
def spec(make_model: Callable[..., Path]) -> EngineSpec:
    return EngineSpec(name="alphabet", path=make_model(n_ctx=4096), n_ctx=4096)


@pytest.fixture
async def engine(spec: EngineSpec) -> AsyncIterator[Engine]:
    engine = await Engine.load(spec)
    yield engine
    await engine.close()


async def finish(engine: Engine, job: Job) -> Any:
    stream = engine.start(job)
    text = "".join([item.text async for item in stream.items() if isinstance(item, Piece)])
    return text, stream.result()


async def test_a_running_answer_stops_when_asked(engine: Engine) -> None:
    stream = engine.start(Job(tokens=[ord("?")], sampling=ENDLESS))
    pieces = stream.items()
    assert await anext(pieces) is not None

    await stream.stop()

    with pytest.raises(Stopped):
        stream.result()
    text, result = await finish(engine, Job(tokens=list(b"vwx"), sampling=Sampling()))
    assert text == "yz"
    assert result.cached_tokens == 0


async def test_each_step_and_each_piece_of_a_model_moves_the_pulse(spec: EngineSpec) -> None:
    seen = [beats()]
    engine = await Engine.load(spec)
    seen.append(beats())
    await finish(engine, Job(tokens=list(b"vwx"), sampling=Sampling()))
    seen.append(beats())
    await engine.close()
    assert seen == sorted(set(seen))
    assert beats() == seen[-1]  # nothing else moves it


async def test_reading_a_prompt_stops_between_steps(spec: EngineSpec) -> None:
    engine = await Engine.load(EngineSpec(name="small steps", path=spec.path, n_ctx=4096, batch_size=64))
    prompt = list(b"b" * LONG)
    stream = engine.start(Job(tokens=prompt, sampling=ENDLESS))
    await asyncio.sleep(0.02)

    await stream.stop()

    with pytest.raises(Stopped):
        stream.result()
    _, again = await finish(engine, Job(tokens=prompt, sampling=TWO))
    assert again.cached_tokens < LONG - 1  # what was read is kept, the rest was never read
    assert again.cached_tokens % 64 == 0
    await engine.close()


async def test_a_single_long_step_is_given_up_within(spec: EngineSpec) -> None:
    engine = await Engine.load(EngineSpec(name="one step", path=spec.path, n_ctx=4096, batch_size=4096))
    prompt = list(b"b" * LONG)
    stream = engine.start(Job(tokens=prompt, sampling=ENDLESS))
    await asyncio.sleep(0.02)

    await stream.stop()

    with pytest.raises(Stopped):
        stream.result()
    _, again = await finish(engine, Job(tokens=prompt, sampling=TWO))
    assert again.cached_tokens == 0
    await engine.close()


async def test_a_job_that_waits_can_be_stopped_before_its_turn(engine: Engine) -> None:
    first = engine.start(Job(tokens=[ord("?")], sampling=ENDLESS))
    second = engine.start(Job(tokens=[ord("?")], sampling=ENDLESS))
    second.flag.set()
    await first.stop()
    await second.stop()
    with pytest.raises(Stopped):
        second.result()
    assert [item async for item in second.items()] == []


async def test_closing_ends_what_runs_and_what_waits(spec: EngineSpec) -> None:
    engine = await Engine.load(spec)
    jobs = [engine.start(Job(tokens=[ord("?")], sampling=ENDLESS)) for _ in range(2)]
    await anext(jobs[0].items())
    await engine.close()
    for job in jobs:
        await job.ended()
        with pytest.raises(ShuttingDown):
            job.result()


async def test_loading_can_be_given_up_and_leaves_nothing_behind(spec: EngineSpec) -> None:
    for _ in range(5):
        loading = asyncio.create_task(Engine.load(spec))
        await asyncio.sleep(0)
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await (await loading).close()  # it was quicker
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("llama.cpp")]
    await (await Engine.load(spec)).close()


async def test_settings_that_llama_cpp_cannot_take_are_an_error_with_a_cure(spec: EngineSpec) -> None:
    with pytest.raises(ModelLoadFailed) as caught:
        await Engine.load(EngineSpec(name="split", path=spec.path, n_ctx=64, tensor_split=[1.0] * 1000))
    assert "tensor_split" in caught.value.message
    assert "tensor_split" in str(caught.value.hint)


async def test_leaving_the_generator_stops_the_engine_and_frees_the_turn(
    make_model: Any, make_binding: Callable[..., Awaitable[LlamaCppBinding]]
) -> None:
    make_model(n_ctx=4096)
    binding = await make_binding(n_ctx=4096)
    request = GenerateRequest(id="r", model="alphabet.gguf", raw_prompt="?", parameters={"max_tokens": -1})

    for _ in range(3):
        chunks = binding.generate(request)
        await anext(chunks)
        await chunks.aclose()

    consumer = asyncio.create_task(anext(binding.generate(request)))
    await asyncio.sleep(0)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    async with asyncio.timeout(60):
        await anext(binding.generate(request))


async def test_unloading_waits_for_the_answer_that_runs(
    make_model: Any, make_binding: Callable[..., Awaitable[LlamaCppBinding]]
) -> None:
    make_model()
    binding = await make_binding()
    request = GenerateRequest(id="r", model="alphabet.gguf", raw_prompt="?", parameters={"max_tokens": 50})
    chunks = binding.generate(request)
    await anext(chunks)
    unloading = asyncio.create_task(binding.unload())
    rest = [chunk async for chunk in chunks]
    await unloading
    assert rest[-1].reason == "length"  # type: ignore[union-attr]
    assert (await binding.get_model_info("alphabet")).details["loaded"] is False
