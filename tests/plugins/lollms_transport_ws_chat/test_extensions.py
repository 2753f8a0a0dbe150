"""What goes beyond the published protocol, and only where a client asks for it."""

from __future__ import annotations

from lollms_transport_ws_chat.messages import FEATURES

from .test_traces import END, replies, say, trace
from .world import WELCOME, FakeBackend, World

ALL = ",".join(sorted(FEATURES))


def slowly_told() -> FakeBackend:
    backend = FakeBackend(latency=4.0)
    backend.pieces = ["one two ", "three four ", "five six ", "seven "]
    return backend


@trace(backend=slowly_told)
async def test_without_asking_a_client_gets_the_published_messages_only(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."))
    for kind in ("INTERRUPT", "END_OF_TURN", "PLAYBACK_STARTED", "PLAYBACK_FINISHED", "USER_PARTIAL", "PING"):
        socket.send({"type": kind, "payload": {"response_id": "x"}})
    await world.at(END)
    assert {kind for _, kind, _ in socket.got} == {"AI_RESPONSE", "ERROR"}
    assert {error["code"] for error in socket.payloads("ERROR")} == {"unknown_type"}
    assert "features=interrupt" in socket.payloads("ERROR")[0]["message"]
    assert world.backend.histories == [[WELCOME, "hi."]]


@trace(backend=slowly_told)
async def test_an_answer_is_streamed_and_then_comes_whole(world: World) -> None:
    socket = await world.connect(features="stream,no_such_feature")
    await say(world, socket, (3, "hi."))
    await world.at(END)
    deltas = socket.payloads("AI_RESPONSE_DELTA")
    whole = socket.payloads("AI_RESPONSE")[-1]
    assert [delta["text"] for delta in deltas] == ["one two ", "three four ", "five six ", "seven 1"]
    assert "".join(delta["text"] for delta in deltas) == whole["text"]
    assert {delta["response_id"] for delta in deltas} == {whole["response_id"]}
    assert socket.times("AI_RESPONSE_DELTA") == [3.0, 4.0, 5.0, 7.0]


@trace()
async def test_states_are_told_as_they_change(world: World) -> None:
    socket = await world.connect(features="state")
    await say(world, socket, (3, "i want"), (5, "tea."))
    await world.at(6.5)
    socket.say("more")
    await world.at(END)
    told = [
        (round(at, 3), payload["state"], payload["buffer_size"])
        for at, kind, payload in socket.got
        if kind == "STATE"
    ]
    assert told == [
        (0.0, "speaking", 0),
        (2.5, "listening", 0),
        (3.0, "buffering", 1),
        (5.0, "buffering", 2),
        (5.0, "thinking", 0),
        (6.0, "speaking", 0),
        (6.5, "speaking", 1),
        (9.0, "buffering", 1),
        (14.0, "thinking", 0),
        (15.0, "speaking", 0),
        (18.0, "listening", 0),
    ]


@trace()
async def test_the_end_of_playback_is_what_the_client_says(world: World) -> None:
    socket = await world.connect(features="playback")
    welcome = socket.payloads("AI_RESPONSE")[0]["response_id"]
    await say(world, socket, (0.5, "hi."))
    socket.send({"type": "PLAYBACK_FINISHED", "payload": {"response_id": "another"}})
    await world.at(1)
    socket.send({"type": "PLAYBACK_FINISHED", "payload": {"response_id": welcome}})
    await world.at(END)
    assert world.asked == [(6.0, "hi.")]


@trace(playback_slack=10.0)
async def test_the_beginning_of_playback_is_what_the_client_says_within_bounds(world: World) -> None:
    socket = await world.connect(features="playback")
    welcome = socket.payloads("AI_RESPONSE")[0]["response_id"]
    await world.at(1)
    socket.send({"type": "PLAYBACK_STARTED", "payload": {"response_id": welcome}})
    await say(world, socket, (3.4, "hi."))  # which is before 1 + 2.5
    await world.at(8.4)
    assert world.asked == []
    await world.at(8.5)
    assert world.asked == [(8.5, "hi.")]
    await world.at(10)
    reply = socket.payloads("AI_RESPONSE")[-1]["response_id"]
    started = {"response_id": reply, "duration": 500}
    socket.send({"type": "PLAYBACK_STARTED", "payload": started})
    await say(world, socket, (11, "more."))
    await world.at(END)
    assert world.asked[1:] == [(9.5 + 3 + 10 + 5, "more.")]


@trace()
async def test_an_interrupted_answer_is_remembered_as_far_as_it_was_heard(world: World) -> None:
    world.backend.pieces = ["one two three four five six seven eight nine ten eleven "]
    socket = await world.connect(features="interrupt")
    await say(world, socket, (3, "hi."))
    await world.at(5)
    response = socket.payloads("AI_RESPONSE")[-1]["response_id"]
    socket.send({"type": "INTERRUPT", "payload": {"response_id": response, "played_ms": 1500}})
    await world.settle()
    heard = socket.payloads("INTERRUPTED")[0]
    assert heard["response_id"] == response
    assert heard["text"].startswith("one two three four")
    assert "eight" not in heard["text"]
    assert world.history()[-1] == heard["text"]
    await say(world, socket, (5.2, "stop."))
    await world.at(END)
    assert world.asked[1:] == [(5.2, "stop.")]
    assert world.backend.histories[1][-2] == heard["text"]


@trace()
async def test_an_answer_of_which_nothing_was_heard_is_not_remembered(world: World) -> None:
    socket = await world.connect(features="interrupt")
    await say(world, socket, (3, "hi."))
    await world.at(5)
    socket.send({"type": "INTERRUPT", "payload": {"played_ms": 0}})
    await world.settle()
    assert socket.payloads("INTERRUPTED")[0]["text"] == ""
    assert world.history() == [WELCOME, "hi."]


@trace(backend=slowly_told)
async def test_an_answer_in_the_making_can_be_interrupted(world: World) -> None:
    socket = await world.connect(features="interrupt,stream")
    await say(world, socket, (3, "hi."))
    await world.at(5.5)
    response = socket.payloads("AI_RESPONSE_DELTA")[0]["response_id"]
    socket.send({"type": "INTERRUPT", "payload": {"response_id": response, "played_ms": 60000}})
    await world.at(6)
    assert world.backend.running == {"u": 0}
    assert socket.payloads("INTERRUPTED")[0]["text"] == "one two three four five six"
    assert world.history() == [WELCOME, "hi.", "one two three four five six"]
    await world.at(END)
    assert replies(socket) == []


@trace()
async def test_there_must_be_something_to_interrupt(world: World) -> None:
    socket = await world.connect(features="interrupt")
    socket.send({"type": "INTERRUPT", "payload": {"response_id": "of last week"}})
    socket.send({"type": "INTERRUPT", "payload": {"played_ms": -1}})
    socket.send({"type": "INTERRUPT", "payload": {"response_id": 5}})
    await world.settle()
    codes = [error["code"] for error in socket.payloads("ERROR")]
    assert codes == ["nothing_to_interrupt", "invalid_payload", "invalid_payload"]


@trace()
async def test_the_end_of_a_turn_may_be_told(world: World) -> None:
    socket = await world.connect(features="turn")
    await say(world, socket, (3, "i want"))
    await world.at(4)
    socket.send({"type": "END_OF_TURN"})
    await world.at(4.5)
    socket.say("more")
    socket.send({"type": "END_OF_TURN"})  # while the answer is made: asked as soon as that was spoken
    await world.at(END)
    assert world.asked == [(4.0, "i want"), (8.0, "more")]
    assert [answer["reason"] for answer in socket.payloads("AI_RESPONSE")[1:]] == ["end_of_turn"] * 2


@trace()
async def test_a_sentence_under_way_keeps_the_silence_from_running_out(world: World) -> None:
    socket = await world.connect(features="partial")
    await say(world, socket, (3, "i want"))
    for at in (6, 9, 12):
        await world.at(at)
        socket.send({"type": "USER_PARTIAL", "payload": {"text": "and also"}})
    await world.at(END)
    assert world.asked == [(17.0, "i want")]


@trace()
async def test_a_ping_comes_back(world: World) -> None:
    socket = await world.connect(features="ping")
    socket.send({"type": "PING", "payload": {"id": 7}})
    socket.send({"type": "PING"})
    socket.send({"type": "PING", "payload": {"id": {"not": "echoed"}}})
    socket.send('{"type": "PING", "payload": {"id": 1%s}}' % ("0" * 300))
    await world.settle()
    assert socket.payloads("PONG") == [{"client_id": "u", "id": 7}, *[{"client_id": "u"}] * 3]


@trace()
async def test_a_client_learns_whether_its_session_goes_on(world: World) -> None:
    first = await world.connect(features="session")
    await say(world, first, (3, "hi."))
    await world.at(5)
    first.drop()
    second = await world.connect(name="b", features=ALL)
    assert first.got[0][1:] == ("SESSION", {"resumed": False, "history_len": 0, "features": ["session"]})
    resumed = {"resumed": True, "history_len": 3, "features": sorted(FEATURES)}
    assert second.got[0][1:] == ("SESSION", resumed)


@trace(evaluate_on_playback_end=True)
async def test_what_was_said_during_playback_can_be_judged_as_soon_as_it_ends(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (1, "hi."), (4, "i want"))
    await world.at(END)
    assert world.asked == [(2.5, "hi."), (11.5, "i want")]
    assert [answer["reason"] for answer in socket.payloads("AI_RESPONSE")[1:]] == ["complete", "timeout"]


@trace(welcome="Say hello.", welcome_from_backend=True)
async def test_the_welcome_may_be_made_by_the_model(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (0.5, "hi."))
    await world.at(END)
    assert world.asked == [(0.0, "Say hello."), (9.0, "hi.")]
    assert socket.payloads("AI_RESPONSE")[0]["reason"] == "welcome"
    assert world.backend.histories[1] == ["reply 1", "hi."]


@trace(welcome="")
async def test_there_need_be_no_welcome(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (0, "hi."))
    await world.at(END)
    assert replies(socket) == [1.0]
    assert len(socket.got) == 1
