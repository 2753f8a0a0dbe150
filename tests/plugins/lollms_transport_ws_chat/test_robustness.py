"""Limits, slow clients, failing detectors and stores, and the end of the server; on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from lollms_transport_ws_chat.events import Disconnected, Outgoing
from lollms_transport_ws_chat.snapshot import Snapshot
from lollms_transport_ws_chat.storage import SessionKey, Storage
from lollms_transport_ws_chat.turn_detection import Turn, TurnDetector

from .test_traces import END, replies, say, trace
from .virtual_time import on_virtual_time
from .world import WELCOME, FakeBackend, FakeSocket, World


class Broken(TurnDetector):
    """A model that cannot be loaded."""

    name = "broken"
    instant = True

    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        raise RuntimeError("no such model")


class Drawer(Storage):
    """A store in memory that can be told to fail."""

    def __init__(self) -> None:
        self.kept: dict[SessionKey, Snapshot] = {}
        self.fails = False
        self.unreadable = False

    async def load(self, key: SessionKey) -> Snapshot | None:
        if self.unreadable:
            raise OSError("the disk is gone")
        return self.kept.get(key)

    async def save(self, key: SessionKey, snapshot: Snapshot, ttl: float) -> None:
        if self.fails:
            raise OSError("the disk is full")
        self.kept[key] = snapshot

    async def delete(self, key: SessionKey) -> None:
        self.kept.pop(key, None)


@trace(detector=Broken)
async def test_where_the_detector_fails_the_rule_judges(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "turn on the light"), (20, "i want to"))
    await world.at(END)
    assert world.asked == [(3.0, "turn on the light"), (25.0, "i want to")]


@trace(settings={"messages_per_second": 1.0, "message_burst": 2, "max_text_chars": 10})
async def test_a_flood_is_refused_and_in_the_end_closed(world: World) -> None:
    socket = await world.connect()
    await world.at(3)
    for _ in range(5):
        socket.say("hm")
    await world.at(4)
    assert [error["code"] for error in socket.payloads("ERROR")] == ["rate_limited"] * 3
    assert all(error["retryable"] for error in socket.payloads("ERROR"))
    socket.say("hm")
    await world.at(4.1)
    assert len(socket.payloads("ERROR")) == 3
    for _ in range(400):
        socket.say("hm")
        await world.settle()
    assert socket.closed is not None
    assert socket.closed[1] == 1008


@trace(buffer_limit=4)
async def test_input_that_nobody_answers_does_not_pile_up(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, *((1 + number / 10, f"part {number}") for number in range(6)))
    await world.at(END)
    errors = socket.payloads("ERROR")
    assert [(error["code"], error["text"]) for error in errors] == [
        ("buffer_full", "part 4"),
        ("buffer_full", "part 5"),
    ]
    assert world.asked[0][1] == "part 0 part 1 part 2 part 3"


@trace()
async def test_hostile_frames_are_errors(world: World) -> None:
    socket = await world.connect()
    frames: list[Any] = [
        b"\x00\x01",
        "[" * 60_000,
        '{"type": "USER_INPUT", "payload": {"text": "\\ud800"}}',
        '{"type": "USER_INPUT", "payload": {"text": NaN}}',
        '{"payload": {}}',
        '{"type": 5}',
        '{"type": "user_input", "payload": {"text": "hi"}}',
        '{"type": "USER_INPUT"}',
        '{"type": "USER_INPUT", "payload": [1]}',
        '{"type": "USER_INPUT", "payload": {"text": "hi.", "client_id": 5}}',
        '{"type": "USER_INPUT", "payload": {"text": "hi.", "client_id": "a\\nb"}}',
        '{"type": "USER_INPUT", "payload": {"text": "' + "é" * 40_000 + '"}}',
    ]
    await world.at(3)
    for frame in frames:
        socket.send(frame)
    await world.at(4)
    codes = [error["code"] for error in socket.payloads("ERROR")]
    assert codes == [
        "binary",
        "invalid_json",
        "invalid_json",
        "invalid_json",
        "invalid_message",
        "invalid_message",
        "unknown_type",
        "invalid_payload",
        "invalid_payload",
        "invalid_client_id",
        "invalid_client_id",
        "too_large",
    ]
    assert (socket.closed, world.asked) == (None, [])
    socket.say("hi.", client_id="", more={"unknown": 1})
    await world.at(5)
    assert world.asked == [(4.0, "hi.")]


@trace()
async def test_a_frame_beyond_all_bounds_ends_the_connection(world: World) -> None:
    socket = await world.connect()
    socket.send("x" * (1024 * 1024 + 1))
    await world.settle()
    assert socket.closed is not None
    assert socket.closed[1] == 1009


@pytest.mark.parametrize("client_id", ["", " ", "a\nb", "x" * 129, "\u2028"])
def test_a_client_id_that_could_forge_log_lines_is_refused(client_id: str) -> None:
    @trace()
    async def connect(world: World) -> None:
        socket = await world.connect(client_id)
        assert socket.closed is not None
        assert socket.closed[1] == 1008

    connect()


@trace(settings={"max_connections": 1})
async def test_there_is_room_for_so_many_connections(world: World) -> None:
    first = await world.connect()
    second = await world.connect("v", name="b")
    assert second.closed is not None
    assert second.closed[1] == 1013
    first.drop()
    await world.settle()
    third = await world.connect("v", name="c")
    assert third.closed is None


@trace(settings={"max_connections_per_address": 1})
async def test_there_is_room_for_so_many_connections_of_one_address(world: World) -> None:
    await world.connect()
    second = await world.connect("v", name="b")
    assert second.closed is not None
    assert second.closed[1] == 1013


@trace(limit=2)
async def test_when_memory_is_full_the_longest_disconnected_session_goes(world: World) -> None:
    sockets = {name: await world.connect(name, name=name) for name in ("one", "two")}
    third = await world.connect("three")
    assert third.closed is not None
    assert third.closed[1] == 1013
    await world.at(1)
    sockets["two"].drop()
    await world.at(2)
    sockets["one"].drop()
    await world.at(3)
    fourth = await world.connect("four")
    assert fourth.closed is None
    known = {actor.key.client_id for actor in world.sessions.actors("")}
    assert known == {"one", "four"}


@trace(settings={"duplicate_policy": "reject"}, replace=False)
async def test_a_second_connection_may_be_refused_instead(world: World) -> None:
    first = await world.connect()
    second = await world.connect(name="b")
    assert (first.closed, second.got) == (None, [])
    assert second.closed is not None
    assert second.closed[1] == 4002


@trace(settings={"allow_client_id_override": False})
async def test_speaking_for_others_can_be_forbidden(world: World) -> None:
    socket = await world.connect()
    await world.at(3)
    socket.say("hi.", client_id="v")
    await world.at(END)
    assert (socket.payloads("ERROR")[0]["code"], world.asked) == ("client_id_mismatch", [])


@trace()
async def test_a_session_that_was_spoken_for_goes_to_its_own_connection_when_that_comes(world: World) -> None:
    speaker = await world.connect()
    await world.at(3)
    speaker.say("hi.", client_id="v")
    await world.at(3.5)
    own = await world.connect("v", name="b")
    await world.at(5)
    assert speaker.closed is None
    assert speaker.payloads("ERROR")[0]["code"] == "session_taken"
    assert (replies(speaker), replies(own)) == ([], [4.0])


@trace()
async def test_a_multiplexing_connection_leaves_all_its_sessions(world: World) -> None:
    speaker = await world.connect()
    await world.at(3)
    speaker.say("i want", client_id="v")
    await world.at(4)
    speaker.drop()
    await world.at(END)
    assert world.asked == []
    own = await world.connect("v", name="b")
    await world.at(2 * END)
    assert replies(own) == [END + 6]


@trace()
async def test_a_client_that_takes_nothing_is_closed_and_keeps_its_answers(world: World) -> None:
    socket = await world.connect()
    socket.stuck = asyncio.Event()
    await say(world, socket, (3, "hi."))
    await world.at(5)
    for number in range(70):
        socket.send({"type": f"WRONG{number}"})
        await world.at(5 + number)
    await world.at(200)
    second = await world.connect(name="b")
    assert [payload["text"] for payload in second.payloads("AI_RESPONSE")] == ["reply 1"]


@trace()
async def test_deltas_for_a_slow_client_are_put_together(world: World) -> None:
    world.backend.pieces = [f"{number} " for number in range(300)]
    socket = await world.connect(features="stream")
    socket.stuck = asyncio.Event()
    await say(world, socket, (3, "hi."))
    await world.at(5)
    socket.stuck.set()
    await world.at(END)
    deltas = socket.payloads("AI_RESPONSE_DELTA")
    assert "".join(delta["text"] for delta in deltas) == socket.payloads("AI_RESPONSE")[-1]["text"]
    assert len(deltas) < 20
    assert socket.closed is None


@trace(backend=lambda: FakeBackend(latency=500.0))
async def test_an_answer_that_takes_too_long_is_an_error(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."))
    await world.at(200)
    assert socket.payloads("ERROR")[0]["code"] == "timeout"
    assert socket.times("ERROR") == [123.0]
    assert world.history() == [WELCOME]


@trace(undelivered_limit=2)
async def test_what_nobody_fetches_is_kept_up_to_a_limit(world: World) -> None:
    await world.connect()
    session = world.session()
    unsent = tuple(
        Outgoing("AI_RESPONSE", {"text": f"{n}", "response_id": f"{n}", "estimated_tts_duration": 1.0})
        for n in range(4)
    )
    world.sessions.actors("")[0].post(Disconnected(session.link, unsent))
    second = await world.connect(name="b")
    assert [payload["text"] for payload in second.payloads("AI_RESPONSE")] == ["2", "3"]
    assert session.playback_ends_at == 2.5 + 1.0 + 1.0


def test_a_session_survives_the_server() -> None:
    drawer = Drawer()

    async def before() -> None:
        async with World.open(storage=drawer) as world:
            socket = await world.connect()
            await say(world, socket, (3, "hi."), (8, "and this"))
            await world.at(9)
            assert drawer.kept[SessionKey("", "u")].buffer == ["and this"]

    async def after() -> None:
        async with World.open(storage=drawer) as world:
            socket = await world.connect()
            assert world.history() == [WELCOME, "hi.", "reply 1"]
            await world.at(END)
            assert (world.asked, len(replies(socket))) == ([(5.0, "and this")], 1)

    on_virtual_time(before())
    on_virtual_time(after())


def test_stopping_lets_answers_out_closes_with_1001_and_keeps_the_rest_for_later() -> None:
    drawer = Drawer()
    sockets: dict[str, FakeSocket] = {}

    async def before() -> None:
        async with World.open(storage=drawer) as world:
            for name in ("quick", "slow", "waiting"):
                sockets[name] = await world.connect(name)
            await say(world, sockets["quick"], (3, "quick."))
            await world.at(3.8)
            world.backend.latency = 30.0
            sockets["slow"].say("slow.")
            sockets["waiting"].say("i want")
            await world.at(3.9)
            await world.reception.drain(2.0)
            late = await world.connect("late")
            assert late.closed is not None
            assert late.closed[1] == 1001

    async def after() -> None:
        async with World.open(storage=drawer) as world:
            again = {name: await world.connect(name) for name in ("quick", "slow", "waiting")}
            await world.at(END)
            texts = {name: [p["text"] for p in s.payloads("AI_RESPONSE")] for name, s in again.items()}
            assert texts["quick"] == []
            assert sorted(texts["slow"] + texts["waiting"]) == ["reply 1", "reply 2"]
            assert world.asked == [(5.0, "slow."), (5.0, "i want")]
            assert world.history("slow")[:2] == [WELCOME, "slow."]

    on_virtual_time(before())
    for socket in sockets.values():
        assert socket.closed is not None
        assert socket.closed[1] == 1001
    assert replies(sockets["quick"]) == [4.0]
    on_virtual_time(after())


@pytest.mark.parametrize("silence", [0.0, 5.0])
def test_what_is_said_while_the_server_stops_is_answered_when_it_is_back(silence: float) -> None:
    drawer = Drawer()

    async def before() -> None:
        async with World.open(storage=drawer, silence=silence) as world:
            busy, other = await world.connect("busy"), await world.connect("other")
            await world.at(3)
            busy.say("hi.")
            await world.settle()
            world.backend.stopping = True
            leaving = asyncio.create_task(world.reception.drain(2.0))
            await world.at(3.5)
            other.say("late.")
            await leaving
            assert replies(busy) == [4.0]
            assert len(world.asked) == 2
        assert drawer.kept[SessionKey("", "other")].buffer == ["late."]

    async def after() -> None:
        async with World.open(storage=drawer) as world:
            other = await world.connect("other")
            await world.at(END)
            assert replies(other) == [6.0]

    on_virtual_time(before())
    on_virtual_time(after())


def test_a_failing_store_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        drawer = Drawer()
        drawer.fails = True
        async with World.open(storage=drawer) as world:
            await world.connect()
            await world.at(5)
            assert drawer.kept == {}
            drawer.fails = False
            await world.at(10)
            assert SessionKey("", "u") in drawer.kept

    on_virtual_time(run())
    assert "Sessions cannot be stored" in caplog.text


def test_a_session_that_cannot_be_read_is_not_overwritten() -> None:
    async def run() -> None:
        drawer = Drawer()
        drawer.unreadable = True
        async with World.open(storage=drawer) as world:
            socket = await world.connect()
            assert socket.closed is not None
            assert socket.closed[1:] == (1013, "The session cannot be read now.")
            drawer.unreadable = False
            speaker = await world.connect()
            drawer.unreadable = True
            await world.at(3)
            speaker.say("hi.", client_id="v")
            await world.at(5)
            assert speaker.payloads("ERROR")[0]["code"] == "no_session"
            speaker.say("hi.")
            await world.at(8)
            assert replies(speaker) == [6.0]

    on_virtual_time(run())


def test_a_deleted_session_is_gone_from_the_store_too() -> None:
    async def run() -> None:
        drawer = Drawer()
        async with World.open(storage=drawer, ttl=100.0) as world:
            socket = await world.connect()
            await world.at(1)
            assert len(drawer.kept) == 1
            assert await world.sessions.delete(SessionKey("", "u"))
            await world.settle()
            assert socket.closed is not None
            assert socket.closed[1] == 4003
            assert not await world.sessions.delete(SessionKey("", "u"))
            await world.at(5)
            assert drawer.kept == {}

            other = await world.connect("expiring")
            await world.at(10)
            other.drop()
            await world.at(200)
            assert drawer.kept == {}

    on_virtual_time(run())
