"""Workers die, hang and are stopped; the server sees errors with reasons, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from lollms_kernel import errors
from lollms_kernel.config.schema import WorkersConfig
from lollms_kernel.types import Chunk, Event, Finished, TextDelta
from lollms_kernel.workers.proxy import WorkerBinding
from lollms_kernel.workers.supervisor import HEALTHY_AFTER, Backoff
from worker_bindings import FOREVER, PulsingBinding
from worker_steps import PATIENT, StartWorker, answer, ask, ended, exists, facts, until, until_running


def limits(**changes: float) -> WorkersConfig:
    return msgspec.structs.replace(PATIENT, **changes)


async def read_until_error(
    binding: WorkerBinding, prompt: str, **parameters: object
) -> tuple[list[Chunk], errors.LollmsError]:
    seen: list[Chunk] = []
    with pytest.raises(errors.LollmsError) as caught:
        async with aclosing(binding.generate(ask(prompt, **parameters))) as chunks:
            async for chunk in chunks:
                seen.append(chunk)
    return seen, caught.value


# --- crashes --------------------------------------------------------------------------------------------------


async def test_a_crash_ends_the_stream_after_what_was_sent_and_the_worker_comes_back(
    worker: StartWorker, events: list[Event], capfd: pytest.CaptureFixture[str]
) -> None:
    binding = worker()
    await binding.open()
    first = binding.pid

    seen, error = await read_until_error(binding, "crash", n=3, signal="SIGSEGV")

    assert seen == [TextDelta(f"{n} ") for n in range(3)]
    assert type(error) is errors.WorkerCrashed
    assert error.message == "Worker 'w' died by SIGSEGV."
    assert error.hint is not None
    assert (await facts(binding))["pid"] != first
    assert (binding.restarts, binding.state) == (1, "ready")
    crash = next(event for event in events if event.name == "worker_crashed")
    assert (crash.data["instance"], crash.data["signal"], crash.data["restarts"]) == ("w", "SIGSEGV", 0)
    assert "Segmentation fault" in capfd.readouterr().err


async def test_a_crash_ends_every_stream_and_call_under_way(worker: StartWorker) -> None:
    binding = worker()
    others = [asyncio.create_task(answer(binding, ask("silence"))) for _ in range(2)]
    await until_running(binding, 2)

    await read_until_error(binding, "crash", n=0, signal="SIGABRT")

    for other in others:
        with pytest.raises(errors.WorkerCrashed, match="SIGABRT"):
            await other


async def test_a_worker_that_exits_by_itself_has_crashed(worker: StartWorker) -> None:
    _, error = await read_until_error(worker(), "exit")

    assert type(error) is errors.WorkerCrashed
    assert "exit code 7" in error.message


async def test_a_killed_worker_says_what_usually_kills(worker: StartWorker) -> None:
    _, error = await read_until_error(worker(), "crash", n=0, signal="SIGKILL")

    assert "SIGKILL" in error.message
    assert "out of memory" in (error.hint or "")


async def test_garbage_from_the_worker_costs_it_its_life(worker: StartWorker) -> None:
    binding = worker()

    _, error = await read_until_error(binding, "stray_bytes")

    assert type(error) is errors.WorkerCrashed
    assert "4294967295 bytes is larger" in error.message
    assert await facts(binding)


async def test_a_crash_while_idle_is_noticed_and_repaired(worker: StartWorker, events: list[Event]) -> None:
    binding = worker()
    await binding.open()
    assert binding.pid is not None
    os.kill(binding.pid, signal.SIGKILL)
    await until(lambda: binding.restarts > 0)

    assert await facts(binding)
    assert [event.name for event in events] == ["worker_started", "worker_crashed", "worker_started"]


async def test_a_start_that_crashes_is_the_error_of_open(worker: StartWorker, tmp_path: Path) -> None:
    binding = worker(starts_file=tmp_path / "starts", crash_at_starts=(1,))

    with pytest.raises(errors.WorkerCrashed, match="SIGSEGV"):
        await binding.open()

    assert binding.state == "stopped"
    assert await facts(binding)


async def test_restarts_that_crash_are_repeated_while_calls_wait(worker: StartWorker, tmp_path: Path) -> None:
    binding = worker(starts_file=tmp_path / "starts", crash_at_starts=(2, 3))
    await read_until_error(binding, "crash", n=0, signal="SIGSEGV")

    assert await facts(binding)
    assert binding.restarts == 3


async def test_a_call_that_waits_too_long_for_a_restart_is_told_when_to_come_back(
    worker: StartWorker,
) -> None:
    binding = worker(limits=limits(restart_delay=500.0, restart_delay_max=500.0, start_timeout=5.0))
    await read_until_error(binding, "crash", n=0, signal="SIGSEGV")

    with pytest.raises(errors.BindingUnavailable) as caught:
        await binding.list_models()

    assert binding.state == "backoff"
    assert caught.value.retry_after is not None
    assert 400 < caught.value.retry_after <= 500


def test_pauses_double_up_to_the_limit_and_begin_anew_after_a_healthy_minute() -> None:
    now = 0.0
    backoff = Backoff(0.2, 1.0, clock=lambda: now)

    assert [backoff.crashed() for _ in range(5)] == [0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.ready()
    now += HEALTHY_AFTER - 1
    assert backoff.crashed() == 1.0
    backoff.ready()
    now += HEALTHY_AFTER
    assert backoff.crashed() == 0.2


def test_a_pause_of_nothing_still_grows() -> None:
    backoff = Backoff(0.0, 30.0)

    assert backoff.crashed() == 0.0
    assert backoff.crashed() > 0.0


# --- hangs ----------------------------------------------------------------------------------------------------


async def test_a_worker_that_gives_no_sign_of_life_is_killed_and_comes_back(
    worker: StartWorker, events: list[Event], capfd: pytest.CaptureFixture[str]
) -> None:
    binding = worker(limits=limits(heartbeat_interval=0.2, heartbeat_timeout=3.0))

    seen, error = await read_until_error(binding, "hang")

    assert seen == [TextDelta("first")]
    assert type(error) is errors.WorkerHung
    assert "gave no sign of life for 3 s and was killed" in error.message
    assert "worker_hung" in [event.name for event in events]
    assert "in _hang" in capfd.readouterr().err
    assert await facts(binding)


async def test_a_stream_that_gives_nothing_is_ended_though_the_worker_lives(worker: StartWorker) -> None:
    binding = worker(limits=limits(heartbeat_interval=0.1, stall_timeout=0.5))

    seen, error = await read_until_error(binding, "wait")

    assert seen == [TextDelta("first")]
    assert type(error) is errors.WorkerHung
    assert "gave nothing for 'generate'" in error.message


async def test_a_reader_that_takes_its_time_is_no_stall(worker: StartWorker) -> None:
    binding = worker(limits=limits(heartbeat_interval=0.05, stall_timeout=0.2))

    async with aclosing(binding.generate(ask("count", n=500))) as chunks:
        await anext(chunks)
        await asyncio.sleep(0.6)
        rest = [chunk async for chunk in chunks]

    assert len(rest) == 500


async def test_a_silent_stream_is_no_stall_while_its_engine_gets_on(worker: StartWorker) -> None:
    binding = worker(PulsingBinding, limits(heartbeat_interval=0.1, stall_timeout=1.5))

    assert await answer(binding, ask("work", seconds=3.0)) == [Finished()]
    assert binding.restarts == 0


async def test_leaving_in_a_long_step_waits_for_its_end_and_costs_others_nothing(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lollms_kernel.workers.link.CANCEL_GRACE", 0.2)
    binding = worker(PulsingBinding)
    other = asyncio.create_task(answer(binding, ask("work", seconds=2.0)))
    leaver = asyncio.create_task(answer(binding, ask("work", seconds=1.0)))
    await until_running(binding, 2)

    leaver.cancel()
    await asyncio.wait([leaver])

    assert leaver.cancelled()
    assert (await facts(binding))["running"] == 1  # its lease would have been given back too early otherwise
    assert await other == [Finished()]
    assert binding.restarts == 0


async def test_an_engine_that_stands_still_is_a_hang_for_who_waits_and_for_who_left(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lollms_kernel.workers.link.CANCEL_GRACE", 0.1)
    binding = worker(PulsingBinding, limits(heartbeat_interval=0.1, stall_timeout=0.5))

    _, error = await read_until_error(binding, "stand_still")
    assert type(error) is errors.WorkerHung
    assert "gave nothing for 'generate'" in error.message

    chunks = binding.generate(ask("stand_still"))
    await anext(chunks)
    async with asyncio.timeout(60):
        await chunks.aclose()
    await until(lambda: binding.restarts == 2)


async def test_a_start_that_takes_too_long_is_ended(worker: StartWorker) -> None:
    binding = worker(limits=limits(start_timeout=1.0), open_delay=FOREVER)

    with pytest.raises(errors.BindingUnavailable, match="not ready within 1 s"):
        await binding.open()
    await until(lambda: binding.state == "stopped")

    assert binding.pid is None


# --- starting and stopping ------------------------------------------------------------------------------------


async def test_the_error_of_open_is_raised_as_it_is(worker: StartWorker, events: list[Event]) -> None:
    binding = worker(open_error="No weights.")

    with pytest.raises(errors.ModelLoadFailed) as caught:
        await binding.open()

    assert (caught.value.message, caught.value.hint) == ("No weights.", "Say something else.")
    assert (binding.state, binding.pid) == ("stopped", None)
    assert events == []


async def test_first_calls_at_the_same_time_start_one_worker(worker: StartWorker) -> None:
    binding = worker()

    answers = await asyncio.gather(*(facts(binding) for _ in range(5)))

    assert {answer["pid"] for answer in answers} == {binding.pid}


async def test_unload_ends_the_process_and_the_next_call_starts_another(
    worker: StartWorker, events: list[Event]
) -> None:
    binding = worker()
    await binding.open()
    first = binding.pid
    assert first is not None

    await binding.unload()

    assert not exists(first)
    assert (binding.state, binding.pid) == ("stopped", None)
    assert (await facts(binding))["pid"] != first
    assert [event.name for event in events] == ["worker_started", "worker_started"]


async def test_streams_under_way_are_told_that_the_worker_was_stopped(worker: StartWorker) -> None:
    binding = worker()
    stream = asyncio.create_task(answer(binding, ask("silence")))
    await until_running(binding)

    await binding.unload()

    with pytest.raises(errors.BindingUnavailable, match="was stopped: its model was unloaded"):
        await stream


async def test_a_worker_that_hangs_is_ended_by_unload_all_the_same(worker: StartWorker) -> None:
    binding = worker()
    chunks = binding.generate(ask("hang"))
    await anext(chunks)
    pid = binding.pid
    assert pid is not None
    await asyncio.sleep(0.1)

    async with asyncio.timeout(30):
        await binding.unload()

    assert not exists(pid)
    await chunks.aclose()


async def test_stopping_while_it_starts_ends_the_start(worker: StartWorker, events: list[Event]) -> None:
    binding = worker(open_delay=FOREVER)
    opening = asyncio.create_task(binding.open())
    await until(lambda: binding.pid is not None)
    pid = binding.pid

    await binding.unload()

    with pytest.raises(errors.BindingUnavailable, match="was stopped"):
        await opening
    assert not exists(pid)
    assert events == []


async def test_a_call_made_while_it_stops_waits_and_starts_it_again(worker: StartWorker) -> None:
    binding = worker()
    await binding.open()
    first = binding.pid

    _, info = await asyncio.gather(binding.unload(), facts(binding))

    assert info["pid"] != first


async def test_after_close_nothing_starts_again(worker: StartWorker) -> None:
    binding = worker()
    await binding.open()

    await binding.close()
    await binding.close()

    with pytest.raises(errors.BindingUnavailable, match="is closed"):
        await binding.list_models()


async def test_no_file_and_no_task_is_left_behind(worker: StartWorker) -> None:
    binding = worker()
    await binding.open()
    await binding.unload()
    before = set(os.listdir("/proc/self/fd"))

    for _ in range(3):
        await answer(binding, ask("count", n=100))
        await read_until_error(binding, "crash", n=0, signal="SIGSEGV")
        await facts(binding)
        await binding.unload()

    assert set(os.listdir("/proc/self/fd")) == before
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_helpers_that_the_engine_started_end_with_the_worker(worker: StartWorker) -> None:
    binding = worker()
    (helper,) = await answer(binding, ask("start_helper"))
    assert isinstance(helper, TextDelta)

    await read_until_error(binding, "crash", n=0, signal="SIGSEGV")

    await ended(int(helper.text))


# --- secrets and signals --------------------------------------------------------------------------------------


async def test_no_secret_is_on_the_command_line_or_in_the_environment(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOLLMS_ENCRYPTION_KEY", "the-master-key")
    binding = worker(api_key="the-secret-key")

    assert (await facts(binding))["key"] == "the-secret-key"
    process = Path(f"/proc/{binding.pid}")
    public = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
    assert b"scripted" in public.lower()
    assert b"the-secret-key" not in public
    assert b"the-master-key" not in public


async def test_ctrl_c_does_not_reach_the_worker(worker: StartWorker) -> None:
    binding = worker()
    await binding.open()
    assert binding.pid is not None

    assert os.getsid(binding.pid) != os.getsid(0)
    os.kill(binding.pid, signal.SIGINT)

    assert await facts(binding)
    assert binding.restarts == 0
