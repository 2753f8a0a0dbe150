"""A binding in a worker behaves as the binding itself."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from lollms_kernel import errors
from lollms_kernel.config.schema import WorkersConfig
from lollms_kernel.contracts import BindingContext, CountsTokens, Embeds, InstanceSettings, Tokenizes
from lollms_kernel.types import (
    Chunk,
    Finished,
    GpuNeed,
    Media,
    ModelInfo,
    Output,
    TextDelta,
    Usage,
)
from lollms_kernel.workers.link import WINDOW
from lollms_kernel.workers.proxy import WorkerBinding
from worker_bindings import GiftedBinding, ScriptedBinding, ScriptedSettings
from worker_steps import StartWorker, answer, ask, facts, until_running


def numbers(n: int) -> list[Chunk]:
    return [TextDelta(f"{number} ") for number in range(n)]


# --- streams --------------------------------------------------------------------------------------------------


async def test_a_stream_arrives_complete_and_in_order(worker: StartWorker) -> None:
    chunks = await answer(worker(), ask("count", n=1000))

    assert chunks == [*numbers(1000), Finished(usage=Usage(1, 1000))]


async def test_chunks_that_come_one_by_one_arrive_in_order(worker: StartWorker) -> None:
    assert await answer(worker(), ask("step", n=300)) == [*numbers(300), Finished()]


async def test_streams_run_at_the_same_time(worker: StartWorker) -> None:
    binding = worker()

    async with asyncio.timeout(60):
        one, other = await asyncio.gather(
            answer(binding, ask("meet", own="a", other="b")), answer(binding, ask("meet", own="b", other="a"))
        )

    assert one == [TextDelta("a"), TextDelta("b")]
    assert other == [TextDelta("b"), TextDelta("a")]


async def test_large_media_go_both_ways(worker: StartWorker) -> None:
    data = bytes(range(256)) * 40_000
    image = Media("image", "input", data, "image/png")

    chunks = await answer(worker(), ask("echo_media", image))

    assert chunks == [Output("image", data, "image/png"), Finished()]


async def test_a_slow_reader_pauses_the_generator(worker: StartWorker) -> None:
    binding = worker()

    async with aclosing(binding.generate(ask("count", n=10_000))) as chunks:
        await anext(chunks)
        paused = await facts(binding)
        rest = [chunk async for chunk in chunks]

    assert paused["made"] == WINDOW
    assert len(rest) == 10_000


# --- stopping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["wait", "count"])
async def test_closing_a_stream_returns_when_the_generator_has_ended(
    worker: StartWorker, prompt: str
) -> None:
    binding = worker()
    chunks = binding.generate(ask(prompt, n=10_000))
    await anext(chunks)
    before = await facts(binding)

    await chunks.aclose()

    assert before["running"] == 1
    assert (await facts(binding))["running"] == 0


async def test_cancelling_a_reader_returns_when_the_generator_has_ended(worker: StartWorker) -> None:
    binding = worker()
    await binding.open()
    reader = asyncio.create_task(answer(binding, ask("silence")))
    await until_running(binding)

    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    assert (await facts(binding))["running"] == 0


async def test_stopping_one_stream_leaves_the_others(worker: StartWorker) -> None:
    binding = worker()
    other = asyncio.create_task(answer(binding, ask("step", n=2000)))
    chunks = binding.generate(ask("wait"))
    await anext(chunks)

    await chunks.aclose()

    assert await other == [*numbers(2000), Finished()]


async def test_a_generator_that_refuses_to_stop_costs_the_worker_its_life(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lollms_kernel.workers.link.CANCEL_GRACE", 0.3)
    binding = worker()
    chunks = binding.generate(ask("refuse_to_stop"))
    await anext(chunks)
    pid = binding.pid

    await chunks.aclose()

    assert (await facts(binding))["pid"] != pid


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("ContextOverflow", errors.ContextOverflow, "Too long."),
        ("ValidationFailed", errors.InvalidRequest, "body: Field required"),
        ("ValueError", errors.InvalidRequest, "Bad request: boom"),
        ("NotImplementedError", errors.NotSupported, "boom"),
        ("TimeoutError", errors.QueueTimeout, "Operation timed out: boom"),
        ("KeyError", errors.GenerationFailed, "KeyError: 'boom'"),
    ],
)
async def test_an_error_of_the_binding_arrives_as_itself(
    worker: StartWorker, name: str, kind: type[errors.LollmsError], message: str, late: bool
) -> None:
    binding = worker()

    with pytest.raises(errors.LollmsError) as caught:
        await answer(binding, ask("fail", error=name, late=late))

    assert type(caught.value) is kind
    assert caught.value.message == message
    assert (await facts(binding))["running"] == 0


async def test_hint_and_retry_after_come_along(worker: StartWorker) -> None:
    with pytest.raises(errors.ContextOverflow) as caught:
        await answer(worker(), ask("fail", error="ContextOverflow"))

    assert (caught.value.hint, caught.value.retry_after) == ("Say less.", 2.5)


async def test_the_traceback_of_an_unexpected_error_is_in_the_log(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    binding = worker()
    with pytest.raises(errors.GenerationFailed):
        await answer(binding, ask("fail", error="KeyError"))
    await binding.close()

    log = capfd.readouterr().err
    assert "in _fail" in log
    assert "worker=w" in log


@pytest.mark.parametrize("prompt", ["unsendable", "malformed"])
async def test_a_chunk_that_is_none_ends_its_stream_and_not_the_worker(
    worker: StartWorker, prompt: str
) -> None:
    binding = worker()
    seen = []

    with pytest.raises(errors.GenerationFailed):
        async with aclosing(binding.generate(ask(prompt))) as chunks:
            async for chunk in chunks:
                seen.append(chunk)

    assert seen == [TextDelta("first")]
    assert (await facts(binding))["running"] == 0
    assert binding.restarts == 0


async def test_an_unknown_model_is_not_found(worker: StartWorker) -> None:
    with pytest.raises(errors.ModelNotFound, match="no model 'other'"):
        await worker().load("other")


# --- what is asked of the front and what of the worker --------------------------------------------------------


async def test_the_front_answers_what_needs_no_engine(worker: StartWorker) -> None:
    binding = worker()

    assert binding.name == "w"
    assert binding.parallel == 3
    assert binding.isolation == "inline"
    assert binding.type_name == "scripted_binding"
    assert binding.card is ScriptedBinding.card
    assert binding.Settings is ScriptedSettings
    assert binding.gpu_need(ask("count")) == GpuNeed(required=True, share="scripted")
    assert not binding.supports_role("image", "forbidden")
    assert binding.unavailable_reason() is None
    assert dict(binding.builtin_instances()) == {}
    assert (binding.state, binding.pid) == ("stopped", None)


async def test_the_proxy_has_the_capabilities_of_the_binding_and_no_others(worker: StartWorker) -> None:
    plain, gifted = worker(), worker(GiftedBinding)

    assert not isinstance(plain, Tokenizes | CountsTokens | Embeds)
    assert isinstance(gifted, Tokenizes)
    assert isinstance(gifted, CountsTokens)
    assert isinstance(gifted, Embeds)
    assert isinstance(gifted, WorkerBinding)
    assert await gifted.tokenize("hé", None, True, False) == [256, 104, 195, 169]
    assert await gifted.detokenize([104, 195, 169], None) == "hé"
    assert await gifted.count_tokens("hé", None) == 3
    assert await gifted.embed(["a", "bcd"], None) == [[1.0, 0.5], [3.0, 0.5]]


async def test_models_and_their_facts_come_from_the_worker(worker: StartWorker, tmp_path: Path) -> None:
    binding = worker(folder=tmp_path / "data")

    (model,) = await binding.list_models()
    await binding.load("m")

    assert isinstance(model, ModelInfo)
    assert model.details["pid"] == binding.pid
    assert model.details["folder"] == str(tmp_path / "data" / "x")
    assert model.details["models_folder"] == str(tmp_path / "models" / "x")


async def test_a_class_that_no_other_process_can_import_is_refused(tmp_path: Path) -> None:
    class Local(ScriptedBinding):
        pass

    settings = InstanceSettings(type="x", binding_instance_name="x")
    front = Local(settings, BindingContext(models_folder=tmp_path, root=tmp_path))  # type: ignore[arg-type]

    with pytest.raises(errors.ConfigError, match="cannot be imported by a worker") as caught:
        WorkerBinding(front, WorkersConfig(), lambda event: None)
    assert caught.value.hint is not None


async def test_what_the_engine_prints_goes_to_stderr(
    worker: StartWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    binding = worker()
    await answer(binding, ask("print"))
    await binding.close()

    out, err = capfd.readouterr()
    assert out == ""
    assert "said by Python\n" in err
    assert "said by the engine\n" in err
