"""Off the loop, within a time, and never without an answer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from lollms_kernel.errors import ConfigError
from lollms_transport_ws_chat.turn_detection import Judge, Turn, TurnDetector
from lollms_transport_ws_chat.turn_detection.fixed import AlwaysComplete
from lollms_transport_ws_chat.turn_detection.judge import MAX_WAITING

WHOLE, OPEN = [Turn("user", "water the plants")], [Turn("user", "water the")]


class Scripted(TurnDetector):
    """Answers 0.3 once it may; notes the threads that ask it."""

    name = "scripted"
    default_threshold = 0.25

    def __init__(self, *, held: bool = False, answer: float | Exception = 0.3) -> None:
        super().__init__()
        self.may = threading.Event()
        self.asked = threading.Semaphore(0)
        self.threads: set[int] = set()
        self.closed = 0
        self.answer = answer
        if not held:
            self.may.set()

    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        self.threads.add(threading.get_ident())
        self.asked.release()
        assert self.may.wait(60)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed += 1


@asynccontextmanager
async def judging(detector: TurnDetector, limit: float = 30) -> AsyncIterator[Judge]:
    judge = Judge(detector, limit=limit)
    try:
        yield judge
    finally:
        if isinstance(detector, Scripted):
            detector.may.set()
        judge.close()


async def test_a_verdict_tells_what_was_compared() -> None:
    async with judging(Scripted()) as judge:
        verdict = await judge.judge(WHOLE)

    assert (verdict.probability, verdict.threshold, verdict.complete, verdict.detector) == (
        0.3,
        0.25,
        True,
        "scripted",
    )


async def test_a_probability_of_the_threshold_is_complete() -> None:
    async with judging(Scripted(answer=0.25)) as judge:
        assert (await judge.judge(OPEN)).complete


async def test_models_run_in_a_thread_and_the_loop_goes_on() -> None:
    detector = Scripted(held=True)
    async with judging(detector) as judge:
        verdict = asyncio.create_task(judge.judge(WHOLE))
        await asyncio.to_thread(detector.asked.acquire)
        assert not verdict.done()
        detector.may.set()
        await verdict

    assert len(detector.threads - {threading.get_ident()}) == 1


async def test_what_is_instant_needs_no_thread() -> None:
    async with judging(AlwaysComplete()) as judge:
        coroutine = judge.judge(OPEN)
        with pytest.raises(StopIteration) as ended:  # without ever waiting
            coroutine.send(None)

    assert ended.value.value.complete


@pytest.mark.parametrize(
    "fault", [ConfigError("no model", hint="get one"), RuntimeError("broken"), float("nan"), 1.5]
)
async def test_where_a_detector_fails_the_rule_judges_and_the_log_tells(
    fault: float | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with judging(Scripted(answer=fault)) as judge:
        whole, open_ = await judge.judge(WHOLE), await judge.judge(OPEN)

    assert (whole.complete, open_.complete) == (True, False)
    assert {whole.detector, open_.detector} == {"rule"}
    assert "turn detector `scripted` failed" in caplog.text


async def test_the_same_failure_again_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with judging(Scripted(answer=RuntimeError("broken"))) as judge:
        for _ in range(5):
            await judge.judge(WHOLE)

    assert caplog.text.count("broken") == 1


async def test_where_the_rule_fails_too_the_turn_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise RuntimeError("no lists")

    monkeypatch.setattr("lollms_transport_ws_chat.turn_detection.rule.rule_probability", fail)
    async with judging(Scripted(answer=RuntimeError("broken"))) as judge:
        verdict = await judge.judge(OPEN)

    assert (verdict.complete, verdict.detector) == (True, "none")


async def test_a_detector_that_hangs_is_late_once_and_then_left_alone_until_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    detector = Scripted(held=True)
    async with judging(detector, limit=0.05) as judge:
        late = await judge.judge(OPEN)
        again = await judge.judge(OPEN)
        asked = len(detector.threads)
        detector.may.set()
        assert judge._thread is not None
        await asyncio.wrap_future(judge._thread.submit(int))  # the late call has ended before this one
        await asyncio.sleep(0)
        recovered = await judge.judge(OPEN)

    assert (late.detector, again.detector) == ("rule", "rule")
    assert recovered.detector == "scripted"
    assert "more than 0.05 s" in caplog.text
    assert asked == 1


async def test_no_more_than_so_many_turns_wait() -> None:
    detector = Scripted(held=True)
    async with judging(detector) as judge:
        waiting = [asyncio.create_task(judge.judge(WHOLE)) for _ in range(MAX_WAITING)]
        await asyncio.to_thread(detector.asked.acquire)
        overflow = await judge.judge(WHOLE)
        detector.may.set()
        verdicts = await asyncio.gather(*waiting)

    assert overflow.detector == "rule"
    assert {verdict.detector for verdict in verdicts} == {"scripted"}


async def test_cancelling_the_one_who_asks_leaves_no_place_taken() -> None:
    detector = Scripted(held=True)
    async with judging(detector) as judge:
        for _ in range(2 * MAX_WAITING):
            asking = asyncio.create_task(judge.judge(WHOLE))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        detector.may.set()

        assert (await judge.judge(WHOLE)).detector == "scripted"


async def test_closing_closes_the_detector() -> None:
    detector = Scripted()
    async with judging(detector) as judge:
        await judge.judge(WHOLE)

    assert detector.closed == 1


def test_a_detector_that_hangs_for_ever_does_not_keep_the_process() -> None:
    program = """
import asyncio, threading
from lollms_transport_ws_chat.turn_detection import Judge, Turn, TurnDetector

class Hangs(TurnDetector):
    name = "hangs"
    def probability(self, turns, language=None):
        threading.Event().wait()

async def main():
    judge = Judge(Hangs(), limit=0.05)
    print((await judge.judge([Turn("user", "hello there")])).detector)
    judge.close()

asyncio.run(main())
"""

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.strip() == "rule"
