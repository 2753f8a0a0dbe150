"""The one thread that draws: stopping, company, exhausted memory, and giving everything back."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
import torch

from lollms_binding_diffusers import DiffusersBinding, drawing, job
from lollms_binding_diffusers.exhaustion import OutOfMemory
from lollms_kernel.errors import GenerationFailed, QueueFull, ShuttingDown, error_from_code
from lollms_kernel.types import Finished, Notice, Output, Progress

from .conftest import chunks_of, draw, order, outputs_of

Open = Callable[..., Awaitable[DiffusersBinding]]
LIMIT = 60.0


class Steps:
    """Every step that any pipeline has made, by the thread that made it."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def add(self) -> None:
        self.threads.append(threading.get_ident())
        self._loop.call_soon_threadsafe(self.begun.set)


@pytest.fixture
async def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    made, after_step = Steps(), drawing.Watch.after_step

    def counted(self: Any, *arguments: Any) -> Any:
        made.add()
        return after_step(self, *arguments)

    monkeypatch.setattr(drawing.Watch, "after_step", counted)
    return made


async def test_leaving_the_stream_ends_the_drawing_within_one_step(open_binding: Open, steps: Steps) -> None:
    binding = await open_binding()
    async with asyncio.timeout(LIMIT):
        async with aclosing(
            binding.generate(order(num_inference_steps=150, width=256, height=256))
        ) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Progress):
                    break
            seen = len(steps.threads)
        after_leaving = len(steps.threads)
        assert (
            after_leaving <= seen + 2
        )  # the one under way, and one that began while this test was not running
        await draw(binding, order())
    assert (
        len(steps.threads) == after_leaving + 2
    )  # of the second request alone: the first has stopped for good


async def test_a_request_that_waits_leaves_the_queue_at_once(open_binding: Open, steps: Steps) -> None:
    binding = await open_binding()
    first = asyncio.create_task(draw(binding, order(num_inference_steps=150)))
    await steps.begun.wait()
    waiting = asyncio.create_task(draw(binding, order(model="other")))
    await asyncio.sleep(0.05)
    waiting.cancel()
    async with asyncio.timeout(LIMIT):
        await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert not first.done()
    first.cancel()
    await asyncio.wait([first])


async def test_who_leaves_a_batch_does_not_stop_the_others(open_binding: Open) -> None:
    binding = await open_binding(batch_window=1.0)
    leaver = asyncio.create_task(_leave_at_once(binding, order("a", num_inference_steps=20, seed=1)))
    stayer = asyncio.create_task(draw(binding, order("b", num_inference_steps=20, seed=2)))
    async with asyncio.timeout(LIMIT):
        await leaver
        [output] = await stayer
    assert output.metadata["seed"] == 2
    assert output.metadata["batched_with"] == 1


async def _leave_at_once(binding: DiffusersBinding, request: Any) -> None:
    async with aclosing(binding.generate(request)) as chunks:
        await anext(chunks)


async def test_one_thread_draws_whatever_comes_at_once(open_binding: Open, steps: Steps) -> None:
    binding = await open_binding()
    requests = [order(seed=seed, model=model) for seed in range(3) for model in ("tiny", "other")]
    async with asyncio.timeout(LIMIT):
        results = await asyncio.gather(*(draw(binding, request) for request in requests))
    assert [len(outputs) for outputs in results] == [1] * 6
    assert set(steps.threads) != {threading.get_ident()}
    assert len(set(steps.threads)) == 1


async def test_a_model_that_makes_room_for_another_is_told(open_binding: Open) -> None:
    binding = await open_binding()
    await draw(binding, order())
    chunks = await chunks_of(binding, order(model="other"))
    assert [chunk.code for chunk in chunks if isinstance(chunk, Notice)] == ["model_swapped"]
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].timings.load is not None
    details = {info.name: info.details for info in await binding.list_models()}
    assert (details["tiny"]["loaded"], details["other"]["loaded"]) == (False, True)
    assert details["other"]["threads"] == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to"
        ),
        MemoryError(),
    ],
    ids=["GPU", "CPU", "Python"],
)
async def test_exhausted_memory_is_a_clear_error_and_frees_everything(
    open_binding: Open, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import gc
    import weakref

    binding = await open_binding()
    await draw(binding, order())
    engine = binding._engine
    assert engine is not None
    assert engine._loaded is not None
    weights = weakref.ref(engine._loaded.tasks.base.unet)

    def exhausted(*_: Any, **__: Any) -> None:
        raise type(error)(*error.args)  # a fresh one: its traceback holds the model

    with monkeypatch.context() as patch:
        patch.setattr(engine._loaded.tasks.get("text2image").unet, "forward", exhausted)
        with pytest.raises(OutOfMemory, match="Memory ran out while drawing") as failed:
            await draw(binding, order())
    assert "smaller size" in str(failed.value.hint)
    assert (await binding.get_model_info("tiny")).details["loaded"] is False
    del failed
    gc.collect()
    assert weights() is None
    assert len(await draw(binding, order())) == 1


def test_the_error_keeps_its_kind_on_its_way_from_the_worker() -> None:
    error = error_from_code("out_of_memory", "Memory ran out.")
    assert isinstance(error, OutOfMemory)
    assert error.status == 503


async def test_a_pipeline_that_fails_ends_one_request_only(
    open_binding: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = await open_binding()

    def broken(*_: Any, **__: Any) -> None:
        raise IndexError("index 9 is out of bounds")

    with monkeypatch.context() as patch:
        patch.setattr(drawing, "make_plan", broken)
        with pytest.raises(GenerationFailed, match="index 9"):
            await draw(binding, order())
    assert len(await draw(binding, order())) == 1


async def test_unload_forgets_the_model_and_load_fetches_it(open_binding: Open) -> None:
    binding = await open_binding()
    await binding.load("other")
    assert (await binding.get_model_info("other")).details["loaded"] is True
    await binding.unload()
    assert (await binding.get_model_info("other")).details["loaded"] is False


async def test_closing_ends_what_is_drawn_and_what_waits(open_binding: Open, steps: Steps) -> None:
    binding = await open_binding()
    running = asyncio.create_task(draw(binding, order(num_inference_steps=150)))
    await steps.begun.wait()  # only now is it sure which of the two is drawn
    waiting = asyncio.create_task(draw(binding, order(model="other")))
    engine = binding._engine
    assert engine is not None
    async with asyncio.timeout(LIMIT):
        while not engine._waiting:  # noqa: ASYNC110 - its lock belongs to threads
            await asyncio.sleep(0.01)
        await binding.close()
        results = await asyncio.gather(running, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [GenerationFailed, ShuttingDown]


async def test_the_queue_is_bounded(open_binding: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from lollms_binding_diffusers import engine

    monkeypatch.setattr(engine, "MAX_WAITING", 0)
    with pytest.raises(QueueFull):
        await draw(await open_binding(), order())


async def test_the_log_says_how_far_a_long_job_is(
    open_binding: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = await open_binding()
    caplog.set_level(logging.INFO, logger="lollms_binding_diffusers.job")
    await draw(binding, order())
    assert not caplog.records  # a short one is not worth a line
    monkeypatch.setattr(job, "LOG_EVERY", 0.0)
    await draw(binding, order())
    told = [record.getMessage() for record in caplog.records if "step" in record.getMessage()]
    assert [line.split(" after")[0] for line in told] == [
        "Request r draws with 'tiny': step 1 of 2",
        "Request r draws with 'tiny': step 2 of 2",
    ]
    assert not any("a cat" in line for line in told)


async def test_a_slow_reader_misses_steps_and_never_the_result(open_binding: Open) -> None:
    binding = await open_binding()
    chunks = []
    async with aclosing(binding.generate(order(num_inference_steps=100))) as stream:
        async for chunk in stream:
            chunks.append(chunk)
            if isinstance(chunk, Progress):
                await asyncio.sleep(0.2)
    progress = [chunk.step for chunk in chunks if isinstance(chunk, Progress)]
    assert len(progress) < 50
    assert progress[-1] == 100
    assert len(outputs_of(chunks)) == 1
    assert isinstance(chunks[-2], Output)
