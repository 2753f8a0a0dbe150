"""The parts that need no server: what is remembered, what is numbered, what waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lollms_kernel.errors import QueueFull
from lollms_kernel.pace import TokenBucket
from lollms_transport_socketio.conversation import Conversation, without_oldest
from lollms_transport_socketio.packets import PACKETS_PER_POLL, PacketQueue
from lollms_transport_socketio.prompt_line import PromptLine
from lollms_transport_socketio.recovery import MAX_EVENTS, EventLog


def said(conversation: Conversation) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in conversation.turns]


def test_a_conversation_keeps_exchanges_without_blanks_around_answers() -> None:
    conversation = Conversation(limit=1000)

    conversation.add("Hello", "\n Hi! \n")

    assert said(conversation) == [("user", "Hello"), ("assistant", "Hi!")]
    assert [(m.role, m.content) for m in conversation.asking("More")][-1] == ("user", "More")


def test_an_empty_prompt_continues_the_last_answer_or_begins_one() -> None:
    conversation = Conversation(limit=1000)

    conversation.add("", "Once")
    conversation.add("", "upon a time")

    assert said(conversation) == [("user", ""), ("assistant", "Once upon a time")]
    assert conversation.asking("")[-1].content == "Continue."


def test_exchanges_go_as_a_whole_also_when_one_alone_is_too_long() -> None:
    conversation = Conversation(limit=10)

    conversation.add("12345", "12345")
    assert said(conversation) == [("user", "12345"), ("assistant", "12345")]
    conversation.add("a", "b")
    assert said(conversation) == [("user", "a"), ("assistant", "b")]
    conversation.add("x" * 20, "y")
    assert said(conversation) == []


@pytest.mark.parametrize(("turns", "left"), [(0, 0), (2, 0), (4, 2), (6, 4), (20, 10)])
def test_half_of_the_exchanges_are_left_out_and_the_prompt_never(turns: int, left: int) -> None:
    conversation = Conversation(limit=10_000)
    for number in range(turns // 2):
        conversation.add(f"question {number}", f"answer {number}")

    shorter = without_oldest(conversation.asking("now"))

    assert len(shorter) == left + 1
    assert shorter[-1].content == "now"
    assert shorter[0].role == "user"


def test_an_allowance_comes_back_with_time() -> None:
    now = 0.0
    allowance = TokenBucket(rate=2, burst=3, clock=lambda: now)

    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    now = 0.5
    assert [allowance.take() for _ in range(2)] == [True, False]
    now = 1000
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


def test_events_since_a_number_are_told_as_long_as_all_of_them_are_kept() -> None:
    log = EventLog()
    assert log.since("") == log.since("0") == []
    packets = [log.note("text_chunk", {"chunk": str(number)}) for number in range(5)]

    assert packets[0] == '2["text_chunk",{"chunk":"0"},"1"]'
    assert log.since("") == packets
    assert log.since("3") == packets[3:]
    assert log.since("5") == []
    assert log.since("6") is None
    assert log.since("-1") is None
    assert log.since("²") is None
    for _ in range(MAX_EVENTS):
        log.note("text_chunk", {})
    assert log.since("5") is not None
    assert log.since("4") is None
    log.note("text_chunk", {"chunk": "x" * 2_000_000})
    assert log.since(str(MAX_EVENTS + 5)) is None
    assert log.since(str(MAX_EVENTS + 6)) == []


class Packet:
    def __init__(self, data: str) -> None:
        self.data = data


async def test_packets_come_in_portions_that_every_client_takes() -> None:
    queue = PacketQueue(1000, 1000)
    for number in range(PACKETS_PER_POLL + 3):
        queue.put_nowait(number)

    async def portion() -> list[Any]:
        packets = [await queue.get()]
        while True:
            try:
                packets.append(queue.get_nowait())
            except asyncio.QueueEmpty:
                return packets

    assert await portion() == list(range(PACKETS_PER_POLL))
    assert await portion() == [16, 17, 18]


@pytest.mark.parametrize("limits", [(3, 10**9), (10**9, 30)])
async def test_a_full_queue_lets_others_wait_until_there_is_room(limits: tuple[int, int]) -> None:
    queue = PacketQueue(*limits)
    for _ in range(3):
        assert queue.has_room()
        queue.put_nowait(Packet("x" * 10))
    assert not queue.has_room()
    assert queue.has_room(times=2)

    waiting = asyncio.create_task(queue.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await queue.get()
    await waiting


class Answering:
    """Runs until it is let go."""

    def __init__(self, fails: bool = False) -> None:
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.stopped = False
        self.ended = False
        self._fails = fails

    def end(self) -> bool:
        before, self.ended = self.ended, True
        return not before

    async def run(self) -> None:
        self.started.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped = True
            raise
        self.end()
        if self._fails:
            raise ConnectionError


async def test_prompts_run_one_after_another_and_the_line_is_bounded() -> None:
    line = PromptLine(max_waiting=1)
    one, two, three = Answering(), Answering(), Answering()
    line.submit(one)
    await one.started.wait()
    line.submit(two)
    with pytest.raises(QueueFull) as caught:
        line.submit(three)
    assert caught.value.position == 2
    assert not two.started.is_set()

    one.go.set()
    await two.started.wait()
    two.go.set()
    await line.idle()
    line.submit(three)
    await three.started.wait()
    await line.close()
    assert three.stopped


async def test_cancelling_counts_what_had_not_ended() -> None:
    line = PromptLine(max_waiting=2)
    prompts = [Answering() for _ in range(3)]
    for prompt in prompts:
        line.submit(prompt)
    await prompts[0].started.wait()

    assert line.cancel() == 3
    assert line.cancel() == 0
    await line.idle()
    assert prompts[0].stopped
    assert not prompts[1].started.is_set()


async def test_when_the_client_is_gone_nothing_more_is_answered() -> None:
    line = PromptLine(max_waiting=2)
    one, two = Answering(fails=True), Answering()
    line.submit(one)
    line.submit(two)
    one.go.set()
    await line.idle()

    assert not two.started.is_set()
