"""Channels and links over a real socket pair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from lollms_kernel.errors import GenerationFailed, InvalidRequest, PayloadTooLarge, WorkerCrashed
from lollms_kernel.types import Output, TextDelta
from lollms_kernel.workers.channel import Channel
from lollms_kernel.workers.faults import Fault
from lollms_kernel.workers.frames import (
    Call,
    Cancel,
    Chunks,
    Credit,
    Frame,
    FrameError,
    FrameTooLarge,
    Ping,
    Pong,
    Raised,
    Ready,
    Result,
    pack,
)
from lollms_kernel.workers.link import WINDOW, Link
from lollms_kernel.workers.methods import chunks_of
from worker_steps import until


class Peer:
    """The other end: what it received, and how it ended."""

    def __init__(self, max_frame: int = 1_000_000) -> None:
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.channel = Channel(self.frames.put_nowait, self.lost.set_result, max_frame=max_frame)

    async def next(self) -> Frame:
        async with asyncio.timeout(60):
            return await self.frames.get()


async def connect(*channels: Channel) -> None:
    loop = asyncio.get_running_loop()
    for channel, end in zip(channels, socket.socketpair(), strict=True):
        await loop.create_unix_connection(lambda channel=channel: channel, sock=end)  # type: ignore[misc]


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Peer, Peer]]:
    one, other = Peer(), Peer()
    await connect(one.channel, other.channel)
    yield one, other
    for peer in (one, other):
        peer.channel.close()
        await peer.lost


@pytest.fixture
async def condemned() -> list[str]:
    return []


@pytest.fixture
async def linked(condemned: list[str]) -> AsyncIterator[tuple[Link, Peer]]:
    link, peer = Link(condemned.append, max_frame=10_000), Peer()
    await connect(link.channel, peer.channel)
    yield link, peer
    link.channel.close()
    await link.closed
    await peer.lost


async def test_chunks_of_one_turn_share_a_frame_and_come_before_the_result(pair: tuple[Peer, Peer]) -> None:
    one, other = pair

    one.channel.send(Pong())
    one.channel.send_chunk(1, TextDelta("a"))
    one.channel.send_chunk(2, TextDelta("x"))
    one.channel.send_chunk(1, TextDelta("b"))
    one.channel.send(Result(1, pack(None)))

    received = [await other.next() for _ in range(4)]
    assert received[0] == Chunks(1, pack([TextDelta("a"), TextDelta("b")]))
    assert received[1] == Chunks(2, pack([TextDelta("x")]))
    assert received[2:] == [Pong(), Result(1, pack(None))]


async def test_large_chunks_are_not_gathered_into_one_frame_that_is_too_large(
    pair: tuple[Peer, Peer],
) -> None:
    one, other = pair
    large = Output("image", b"x" * 600_000)

    one.channel.send_chunk(1, large)
    one.channel.send_chunk(1, large)

    for _ in range(2):
        frame = await other.next()
        assert isinstance(frame, Chunks)
        assert chunks_of(frame.items) == [large]


async def test_a_frame_over_the_limit_is_refused_and_the_connection_goes_on(pair: tuple[Peer, Peer]) -> None:
    one, other = pair

    with pytest.raises(FrameTooLarge):
        one.channel.send(Result(1, pack(b"x" * 1_000_001)))
    with pytest.raises(FrameTooLarge):
        one.channel.send_chunk(1, Output("image", b"x" * 1_000_001))
    one.channel.send(Ping())

    assert await other.next() == Ping()


async def test_an_oversize_frame_from_the_other_side_ends_the_connection() -> None:
    generous, strict = Peer(max_frame=10_000), Peer(max_frame=100)
    await connect(generous.channel, strict.channel)

    generous.channel.send(Result(1, pack(b"x" * 1000)))

    assert isinstance(await strict.lost, FrameTooLarge)
    await generous.lost
    assert strict.frames.empty()


async def test_closing_sends_what_is_queued(pair: tuple[Peer, Peer]) -> None:
    one, other = pair

    one.channel.send(Pong())
    one.channel.close()

    assert await other.next() == Pong()
    assert await other.lost is None


async def test_sending_after_the_end_does_nothing(pair: tuple[Peer, Peer]) -> None:
    one, other = pair
    other.channel.close()
    await one.lost

    one.channel.send(Ping())
    one.channel.send_chunk(1, TextDelta("a"))
    await asyncio.sleep(0)


# --- a link and a worker played by the test -------------------------------------------------------------------


async def test_a_stream_gets_credit_first_and_more_when_half_is_read(linked: tuple[Link, Peer]) -> None:
    link, peer = linked

    async with link.stream("generate", {"id": "r"}) as stream:
        call, credit = await peer.next(), await peer.next()
        assert isinstance(call, Call)
        assert credit == Credit(call.id, WINDOW)
        for number in range(WINDOW):
            peer.channel.send_chunk(call.id, TextDelta(str(number)))
        read = 0
        while read < WINDOW:
            read += len(await stream.next())
        peer.channel.send(Result(call.id, pack(None)))
        assert await stream.next() == []
        more = await peer.next()
        assert isinstance(more, Credit)
        assert more.count >= WINDOW // 2


async def test_leaving_a_stream_waits_for_the_answer_to_cancel_even_if_cancelled(
    linked: tuple[Link, Peer],
) -> None:
    link, peer = linked
    inside = asyncio.Event()

    async def read() -> None:
        async with link.stream("generate", {}) as stream:
            inside.set()
            await stream.next()

    reader = asyncio.create_task(read())
    await inside.wait()
    call, _ = await peer.next(), await peer.next()
    assert isinstance(call, Call)
    reader.cancel()
    assert await peer.next() == Cancel(call.id)
    for _ in range(3):
        reader.cancel()
        await asyncio.wait([reader], timeout=0.01)
    assert not reader.done()
    peer.channel.send(Raised(call.id, Fault("binding_unavailable", "stopped")))

    with pytest.raises(asyncio.CancelledError):
        await reader


async def test_a_worker_that_does_not_answer_cancel_is_condemned(
    linked: tuple[Link, Peer], condemned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    link, peer = linked
    monkeypatch.setattr("lollms_kernel.workers.link.CANCEL_GRACE", 0.05)

    caller = asyncio.create_task(link.call("load", "m"))
    await peer.next()
    caller.cancel()
    await peer.next()
    await until(lambda: condemned)
    link.fail(Fault.of(WorkerCrashed("gone")))

    assert condemned == ["did not stop 'load' within 0.05 s of being told to"]
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_wait_counts_from_the_last_movement_of_the_pulse(linked: tuple[Link, Peer]) -> None:
    link, peer = linked
    caller = asyncio.create_task(link.call("load", "m"))
    await peer.next()

    async def hear(pulse: int | None) -> tuple[float, float]:
        """What it waited for in vain, just before and just after the peer has told this pulse."""
        await asyncio.sleep(0.02)
        before, received = link.longest_wait()[0], link.received
        peer.channel.send(Pong(pulse))
        await until(lambda: link.received > received)
        return before, link.longest_wait()[0]

    for pulse, moved in ((None, False), (1, True), (1, False), (2, True)):
        before, after = await hear(pulse)
        assert (after < before) is moved, pulse
    link.fail(Fault.of(WorkerCrashed("gone")))
    with pytest.raises(WorkerCrashed):
        await caller


async def test_failing_ends_everything_under_way_and_what_comes_later(linked: tuple[Link, Peer]) -> None:
    link, _ = linked
    caller = asyncio.create_task(link.call("list_models"))
    async with link.stream("generate", {}) as stream:
        link_fault = Fault.of(WorkerCrashed("It died."))
        await asyncio.sleep(0)
        link.fail(link_fault)

        with pytest.raises(WorkerCrashed, match=r"It died\."):
            await stream.next()
    with pytest.raises(WorkerCrashed):
        await caller
    with pytest.raises(WorkerCrashed):
        await link.call("list_models")


async def test_a_request_over_the_limit_is_refused(linked: tuple[Link, Peer]) -> None:
    link, _ = linked

    with pytest.raises(PayloadTooLarge, match="a worker takes 10000"):
        await link.call("detokenize", b"x" * 10_001, None)


async def test_a_request_with_a_value_that_cannot_travel_is_refused(linked: tuple[Link, Peer]) -> None:
    link, _ = linked

    with pytest.raises(InvalidRequest, match="no worker can be given"):
        await link.call("detokenize", [2**70], None)


async def test_a_value_of_a_wrong_type_spoils_one_call_only(linked: tuple[Link, Peer]) -> None:
    link, peer = linked

    caller = asyncio.create_task(link.call("tokenize", "a", None, False, False))
    call = await peer.next()
    assert isinstance(call, Call)
    peer.channel.send(Result(call.id, pack("no list")))

    with pytest.raises(GenerationFailed, match="'tokenize' of the binding"):
        await caller
    peer.channel.send(Result(4711, pack("for nobody")))
    second = asyncio.create_task(link.call("detokenize", [1], None))
    call = await peer.next()
    assert isinstance(call, Call)
    peer.channel.send(Result(call.id, pack("a")))
    assert await second == "a"


async def test_a_worker_of_another_version_is_condemned(
    linked: tuple[Link, Peer], condemned: list[str]
) -> None:
    _, peer = linked

    peer.channel.send(Ready(99))
    await until(lambda: condemned)

    assert "version 99" in condemned[0]


async def test_garbage_ends_the_link_with_its_reason() -> None:
    link = Link(lambda reason: None)
    ours, theirs = socket.socketpair()
    with theirs:
        await asyncio.get_running_loop().create_unix_connection(lambda: link.channel, sock=ours)
        theirs.send(b"\x00\x00\x00\x01\xc1")

        assert isinstance(await link.closed, FrameError)
