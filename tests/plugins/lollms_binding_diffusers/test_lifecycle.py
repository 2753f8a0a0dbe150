"""What a request and a model live through: waiting, loading, being left, failing; and that nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import lollms_binding_diffusers
from lollms_binding_diffusers import DiffusersBinding, drawing, engine, job, loading, memory
from lollms_binding_diffusers.exhaustion import OutOfMemory
from lollms_binding_diffusers.pulse import Pulse
from lollms_kernel.config.schema import WorkersConfig
from lollms_kernel.contracts import BindingContext
from lollms_kernel.errors import BindingUnavailable, GenerationFailed, ModelLoadFailed, ShuttingDown
from lollms_kernel.testing.binding_contract import make_binding
from lollms_kernel.types import GenerateRequest, Info, Progress
from lollms_kernel.workers.proxy import WorkerBinding

from .conftest import chunks_of, draw, image, order, outputs_of

Open = Callable[..., Awaitable[DiffusersBinding]]
LIMIT = 60.0


class Gate:
    """Every load waits here until it is let through."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = threading.Event()
        self._loop = asyncio.get_running_loop()

    def pass_through(self) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self.opened.wait(LIMIT)


@pytest.fixture
async def gate(monkeypatch: pytest.MonkeyPatch) -> Any:
    gate, load_model = Gate(), loading.load_model

    def wait_and_load(*arguments: Any) -> Any:
        gate.pass_through()
        return load_model(*arguments)

    monkeypatch.setattr(loading, "load_model", wait_and_load)
    yield gate
    gate.opened.set()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts of all jobs that were drawn."""
    prompts: list[str] = []
    really_draw = drawing.draw

    def noted(model: Any, jobs: list[job.Job], *others: Any) -> Any:
        prompts.extend(one.order.wanted.prompt for one in jobs)
        return really_draw(model, jobs, *others)

    monkeypatch.setattr(drawing, "draw", noted)
    return prompts


# --- leaving --------------------------------------------------------------------------------------------------


async def test_who_leaves_while_the_model_loads_is_not_drawn_and_lets_go_only_then(
    open_binding: Open, gate: Gate, drawn: list[str]
) -> None:
    binding = await open_binding(batch_window=0.0)
    leaver = asyncio.create_task(draw(binding, order("left")))
    await gate.reached.wait()
    stayer = asyncio.create_task(draw(binding, order("stayed")))
    leaver.cancel()
    await asyncio.wait([leaver], timeout=0.05)
    assert not leaver.done()  # the model still loads for it: its GPU lease must not go to another yet

    gate.opened.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.wait([leaver])
        assert len(await stayer) == 1
    assert leaver.cancelled()
    assert drawn == ["stayed"]


async def test_a_load_that_is_cancelled_leaves_the_engine_at_work(open_binding: Open, gate: Gate) -> None:
    binding = await open_binding()
    loads = [asyncio.create_task(binding.load("tiny"))]
    await gate.reached.wait()
    loads.append(asyncio.create_task(binding.load("other")))
    await asyncio.sleep(0.05)
    for load in loads:
        load.cancel()
    async with asyncio.timeout(LIMIT):
        await asyncio.wait([loads[1]])
    assert not loads[0].done()  # it is under way

    gate.opened.set()
    async with asyncio.timeout(LIMIT):
        await asyncio.wait(loads)
        assert len(await draw(binding, order())) == 1
    assert all(load.cancelled() for load in loads)


async def test_closing_with_a_cancelled_load_in_the_queue_refuses_the_others(
    open_binding: Open, gate: Gate
) -> None:
    binding = await open_binding()
    running = asyncio.create_task(draw(binding, order()))
    await gate.reached.wait()
    cancelled, waiting = (asyncio.create_task(binding.load("other")) for _ in range(2))
    await asyncio.sleep(0.05)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    closing = asyncio.create_task(binding.close())
    with pytest.raises(ShuttingDown):
        await waiting
    gate.opened.set()
    await closing
    with pytest.raises(GenerationFailed):
        await running


# --- waiting --------------------------------------------------------------------------------------------------


async def test_a_client_hears_now_and_then_what_its_request_waits_for(
    open_binding: Open, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "TELL_EVERY", 0.01)
    binding = await open_binding()

    async def first_words(request: GenerateRequest) -> Any:
        async with aclosing(binding.generate(request)) as chunks:
            async for chunk in chunks:
                assert isinstance(chunk, Info)
                return chunk.content

    loads = asyncio.create_task(first_words(order()))
    await gate.reached.wait()
    waits = asyncio.create_task(first_words(order(model="other")))
    async with asyncio.timeout(LIMIT):
        assert await waits == {"status": "waiting", "model": "other"}
        await asyncio.sleep(0.05)
        gate.opened.set()
        assert await loads in ({"status": "loading", "model": "tiny"}, {"status": "waiting", "model": "tiny"})


async def test_who_does_not_want_progress_hears_nothing(
    open_binding: Open, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "TELL_EVERY", 0.01)
    binding = await open_binding()
    asked = msgspec.structs.replace(order(), want_progress=False)
    drawing_ = asyncio.create_task(chunks_of(binding, asked))
    await gate.reached.wait()
    await asyncio.sleep(0.05)
    gate.opened.set()
    assert not [chunk for chunk in await drawing_ if isinstance(chunk, Info | Progress)]


# --- the pulse ------------------------------------------------------------------------------------------------


async def test_every_step_is_a_beat_whether_or_not_anybody_hears_of_it(
    open_binding: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = await open_binding()
    seen: list[int | None] = []
    after_step = drawing.Watch.after_step

    def look(self: Any, *arguments: Any) -> Any:
        seen.append(binding.pulse)
        return after_step(self, *arguments)

    monkeypatch.setattr(drawing.Watch, "after_step", look)
    before = binding.pulse
    await draw(binding, msgspec.structs.replace(order(num_inference_steps=4), want_progress=False))
    after = binding.pulse
    await asyncio.sleep(0.05)
    assert len({before, *seen, after}) == 6
    assert binding.pulse == after  # an engine at rest has none


async def test_a_load_that_moves_no_data_has_no_pulse(open_binding: Open, gate: Gate) -> None:
    binding = await open_binding()
    load = asyncio.create_task(binding.load("tiny"))
    await gate.reached.wait()
    still = binding.pulse
    for _ in range(20):
        await asyncio.sleep(0.01)  # the event loop turns meanwhile
    assert binding.pulse is not None
    assert still is not None
    assert binding.pulse - still <= 1  # another program may have filled a counter up
    gate.opened.set()
    await load
    assert binding.pulse != still


def test_data_on_the_move_counts_while_a_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    used = SimpleNamespace(ru_inblock=0, ru_oublock=0, ru_majflt=0)
    monkeypatch.setattr("resource.getrusage", lambda _: used)
    pulse = Pulse()
    with pulse.moving():
        values = [pulse.value]
        for counter, mib in (("ru_inblock", 2048), ("ru_oublock", 2048), ("ru_majflt", 16)):
            setattr(used, counter, mib - 1)
            assert pulse.value == values[-1]
            setattr(used, counter, mib)
            values.append(pulse.value)
    assert values == [0, 1, 2, 3]
    rest = pulse.value
    used.ru_inblock = 1 << 30
    assert pulse.value == rest


# --- what fails -----------------------------------------------------------------------------------------------


class Broken(MetaPathFinder):
    """Importing this module fails as a torch does whose CUDA is not there."""

    def __init__(self, module: str) -> None:
        self.module = module

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == self.module:
            raise OSError("libcudart.so.12: cannot open shared object file")


@pytest.fixture
def broken_torch() -> Iterator[Callable[[], None]]:
    name = f"{lollms_binding_diffusers.__name__}.loading"
    module, finder = importlib.import_module(name), Broken(name)
    del lollms_binding_diffusers.loading, sys.modules[name]
    sys.meta_path.insert(0, finder)

    def repair() -> None:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
            sys.modules[name] = lollms_binding_diffusers.loading = module

    yield repair
    repair()


async def test_libraries_that_cannot_be_imported_are_an_error_with_the_cure(
    open_binding: Open, broken_torch: Callable[[], None]
) -> None:
    binding = await open_binding()
    async with asyncio.timeout(LIMIT):
        for attempt in (draw(binding, order()), binding.load("tiny")):
            with pytest.raises(BindingUnavailable, match=r"OSError: libcudart\.so\.12") as failed:
                await attempt
            assert "install" in str(failed.value.hint)
        broken_torch()
        assert len(await draw(binding, order())) == 1


@pytest.mark.parametrize("error", [SystemExit(1), RecursionError("deep")])
async def test_nothing_ends_the_engines_thread(
    open_binding: Open, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    binding = await open_binding()

    def fail(*_: Any) -> None:
        raise error

    async with asyncio.timeout(LIMIT):
        with monkeypatch.context() as patch:
            patch.setattr(drawing, "draw", fail)
            with pytest.raises(GenerationFailed, match="The pipeline failed"):
                await draw(binding, order())
        assert len(await draw(binding, order())) == 1


async def test_a_job_whose_event_loop_is_gone_harms_no_other(open_binding: Open) -> None:
    binding = await open_binding()
    wanted = await binding._order(order())

    async def make() -> job.Job:
        return job.Job(wanted)

    orphan = await asyncio.to_thread(lambda: asyncio.run(make()))
    binding._running().submit(orphan)
    async with asyncio.timeout(LIMIT):
        assert len(await draw(binding, order(seed=2))) == 1


@pytest.mark.parametrize("place", ["make_plan", "Watch"])
async def test_memory_that_runs_out_beside_the_pipeline_is_the_same_error(
    open_binding: Open, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    binding = await open_binding()
    await binding.load("tiny")
    kept = _weights(binding)

    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(drawing, place, exhausted)
        with pytest.raises(OutOfMemory):
            await draw(binding, order())
    gc.collect()
    assert kept() is None
    assert (await binding.get_model_info("tiny")).details["loaded"] is False


async def test_memory_that_runs_out_for_a_controlnet_is_the_same_error(
    open_binding: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import ControlNetModel

    binding = await open_binding()
    await binding.load("tiny")
    kept = _weights(binding)

    def exhausted(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(ControlNetModel, "to", exhausted)
    with pytest.raises(OutOfMemory):
        await draw(binding, order("a cat", image("controlnet_image")))
    gc.collect()
    assert kept() is None


async def test_a_failed_load_holds_nothing_of_the_model_and_gives_memory_back(
    open_binding: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = await open_binding()
    parts: list[weakref.ref[Any]] = []
    given_back: list[None] = []

    def broken(pipeline: Any, choice: Any) -> None:
        parts.append(weakref.ref(pipeline.unet))
        raise ValueError("no room on this device")

    give_back = memory.give_back

    def counted() -> None:
        given_back.append(None)
        give_back()

    monkeypatch.setattr(loading, "_move", broken)
    monkeypatch.setattr(loading.logger, "disabled", True)  # pytest keeps records, and with them the frames
    monkeypatch.setattr(memory, "give_back", counted)
    errors = []
    for attempt in (draw(binding, order()), binding.load("tiny")):
        with pytest.raises(ModelLoadFailed, match="no room") as failed:
            await attempt
        errors.append(failed.value)
    gc.collect()
    assert [part() for part in parts] == [None, None], errors
    assert len(given_back) == 2


# --- what stays -----------------------------------------------------------------------------------------------


async def test_an_idle_engine_holds_no_job_and_no_picture(
    open_binding: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = await open_binding()
    jobs: list[weakref.ref[job.Job]] = []
    submit = engine.Engine.submit

    def noted(self: engine.Engine, one: job.Job) -> None:
        jobs.append(weakref.ref(one))
        submit(self, one)

    monkeypatch.setattr(engine.Engine, "submit", noted)
    for seed in range(3):
        assert len(await draw(binding, order("a cat", image(), kind="i2i", strength=1.0, seed=seed))) == 1
    await asyncio.gather(*(draw(binding, order(seed=seed)) for seed in range(4)))
    await binding.load("tiny")  # its turn comes when the engine has nothing more to do for the jobs
    gc.collect()
    assert len(jobs) == 7
    assert [one() for one in jobs] == [None] * 7


def _weights(binding: DiffusersBinding) -> weakref.ref[Any]:
    assert binding._engine is not None
    assert binding._engine._loaded is not None
    return weakref.ref(binding._engine._loaded.tasks.base.unet)


# --- in a worker ----------------------------------------------------------------------------------------------


async def test_leaving_a_slow_load_or_step_costs_nobody_else_the_worker(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr("lollms_kernel.workers.link.CANCEL_GRACE", 0.1)
    slow = importlib.import_module("slow_diffusers").SlowDiffusers
    context = BindingContext(models_folder=root / "models", root=tmp_path)
    settings = {"default_model": "tiny", "models_folder": str(root / "models" / "diffusers_models")}
    limits = WorkersConfig(heartbeat_interval=0.2, heartbeat_timeout=LIMIT)
    binding = WorkerBinding(make_binding(slow, settings, context), limits, lambda event: None)
    try:
        async with asyncio.timeout(2 * LIMIT):
            leaver = asyncio.create_task(_outputs(binding, order("left")))
            while not (tmp_path / "loading").exists():  # noqa: ASYNC110 - happens in another process
                await asyncio.sleep(0.01)
            stayer = asyncio.create_task(_outputs(binding, order("stayed")))
            leaver.cancel()
            assert len(await stayer) == 1
            await asyncio.wait([leaver])

            chunks = binding.generate(order("slow", num_inference_steps=100))
            async for chunk in chunks:
                if isinstance(chunk, Progress):
                    break
            stayer = asyncio.create_task(_outputs(binding, order("stayed", width=128)))
            await chunks.aclose()
            assert len(await stayer) == 1
        assert leaver.cancelled()
        assert binding.restarts == 0
    finally:
        await binding.close()


async def _outputs(binding: WorkerBinding, request: GenerateRequest) -> list[Any]:
    async with aclosing(binding.generate(request)) as chunks:
        return outputs_of([chunk async for chunk in chunks])
