"""The timed traces of the protocol, on a virtual clock: seconds are the clock's, nothing here waits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from .virtual_time import on_virtual_time
from .world import WELCOME, FakeBackend, FakeSocket, NeverEnds, World

END = 60.0


def trace(**options: Any) -> Callable[[Callable[[World], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """A test that runs in a world of its own, which then goes on until nothing is left to happen."""

    def decorate(test: Callable[[World], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        @wraps(test)
        def run() -> None:
            async def in_world() -> None:
                made = {key: value() if callable(value) else value for key, value in options.items()}
                async with World.open(**made) as world:
                    await test(world)
                    assert world.backend.most_at_once <= 1

            on_virtual_time(in_world())

        del run.__wrapped__  # pytest would look for a fixture named `world`
        return run

    return decorate


async def say(world: World, socket: FakeSocket, *said: tuple[float, str]) -> None:
    for at, text in said:
        await world.at(at)
        socket.say(text)
    await world.settle()


def replies(socket: FakeSocket) -> list[float]:
    """When answers came, the welcome left out."""
    return [
        round(at, 3)
        for at, kind, payload in socket.got
        if kind == "AI_RESPONSE" and payload["reason"] != "welcome"
    ]


@trace()
async def test_01_without_a_client_id_the_connection_is_closed_with_1008(world: World) -> None:
    socket = await world.connect(None)
    assert socket.closed is not None
    assert socket.closed[:2] == (0.0, 1008)
    assert len(world.sessions) == 0


@trace()
async def test_02_a_new_session_is_welcomed_and_nothing_else_ever_comes(world: World) -> None:
    socket = await world.connect()
    await world.at(END)
    assert [(at, kind) for at, kind, _ in socket.got] == [(0.0, "AI_RESPONSE")]
    assert socket.got[0][2]["text"] == WELCOME
    assert socket.got[0][2]["estimated_tts_duration"] == 2.5
    assert world.history() == [WELCOME]


@trace()
async def test_03_a_complete_turn_is_answered_at_once(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(3, "hi.")], [4.0])
    assert socket.got[-1][2] == {
        "text": "reply 1",
        "client_id": "u",
        "estimated_tts_duration": 3.0,
        "response_id": socket.got[-1][2]["response_id"],
        "reason": "complete",
    }


@trace()
async def test_04_during_the_welcome_input_waits_for_its_end_and_for_silence(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (1, "hi."))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(7.5, "hi.")], [8.5])


@trace()
async def test_05_at_the_very_end_of_playback_nobody_speaks_any_more(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (2.5, "hi."))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(2.5, "hi.")], [3.5])


@trace()
async def test_06_an_incomplete_turn_is_answered_after_silence(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "i want"))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(8.0, "i want")], [9.0])
    assert socket.got[-1][2]["reason"] == "timeout"


@trace()
async def test_07_the_rest_of_a_turn_completes_it_and_cancels_the_timer(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "i want"), (5, "tea."))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(5, "i want tea.")], [6.0])


@trace()
async def test_08_every_piece_starts_the_silence_anew(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "i want"), (7, "to"))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(12.0, "i want to")], [13.0])


@trace()
async def test_09_enough_pieces_are_answered_however_incomplete(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "a"), (4, "b"), (5, "c"))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(5, "a b c")], [6.0])
    assert socket.got[-1][2]["reason"] == "max_sentences"


@trace(max_incomplete=1)
async def test_10_one_piece_may_be_enough(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "a"))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(3, "a")], [4.0])


@trace()
async def test_11_input_while_an_answer_is_made_waits_until_it_was_spoken(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."), (3.5, "and tea."))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(3, "hi."), (12.0, "and tea.")], [4.0, 13.0])


@trace()
async def test_12_input_while_an_answer_is_spoken_waits_for_its_end(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."), (5, "more."))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(3, "hi."), (12.0, "more.")], [4.0, 13.0])


@trace()
async def test_13_what_was_said_during_playback_is_one_turn(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."), (5, "x."), (6, "y."))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(3, "hi."), (12.0, "x. y.")], [4.0, 13.0])


@trace()
async def test_14_input_after_playback_is_judged_with_what_was_said_during_it(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."), (5, "x"), (8, "y."))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(3, "hi."), (8, "x y.")], [4.0, 9.0])


@trace()
async def test_15_and_waits_for_silence_where_that_is_incomplete(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."), (5, "x"), (8, "y"))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(3, "hi."), (13.0, "x y")], [4.0, 14.0])


@trace()
async def test_16_the_number_of_pieces_forces_nothing_during_playback(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."), (4.2, "x"), (4.4, "y"), (4.6, "z"))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(3, "hi."), (12.0, "x y z")], [4.0, 13.0])


@trace()
async def test_17_but_the_first_piece_after_it_does(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."), (4.2, "x"), (4.4, "y"), (4.6, "z"), (8, "w"))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(3, "hi."), (8, "x y z w")], [4.0, 9.0])


@trace(backend=lambda: FakeBackend(failures=1))
async def test_18_a_failed_answer_takes_its_question_out_of_the_history(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."), (6, "hi2."))
    await world.at(END)
    assert socket.times("ERROR") == [4.0]
    assert socket.payloads("ERROR")[0]["text"] == "hi."
    assert socket.payloads("ERROR")[0]["client_id"] == "u"
    assert world.asked == [(3, "hi."), (6, "hi2.")]
    assert world.backend.histories[1] == [WELCOME, "hi2."]
    assert replies(socket) == [7.0]


@trace(backend=lambda: FakeBackend(failures=1))
async def test_19_after_a_failure_what_was_said_meanwhile_waits_for_silence(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hi."), (3.5, "more."))
    await world.at(END)
    assert socket.times("ERROR") == [4.0]
    assert (world.asked, replies(socket)) == ([(3, "hi."), (9.0, "more.")], [10.0])


@trace(backend=lambda: FakeBackend(failures=1))
async def test_20_a_failed_answer_is_not_asked_for_again(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "i want"))
    await world.at(END)
    assert (world.asked, socket.times("ERROR")) == ([(8.0, "i want")], [9.0])
    assert (world.history(), world.session().buffer) == ([WELCOME], [])


@trace()
async def test_21_invalid_messages_are_errors_and_disturb_nothing(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "i want"))
    bad = (
        "{bad",
        {"type": "PING", "payload": {}},
        {"type": "USER_INPUT", "payload": {}},
    )
    for at, frame in zip((5, 6, 7), bad, strict=True):
        await world.at(at)
        socket.send(frame)
    await world.at(END)
    assert socket.times("ERROR") == [5, 6, 7]
    assert (world.asked, replies(socket)) == ([(8.0, "i want")], [9.0])


@trace()
async def test_22_wrong_payloads_are_errors_and_the_connection_stays(world: World) -> None:
    socket = await world.connect()
    wrong: tuple[Any, ...] = (
        [],
        *({"type": "USER_INPUT", "payload": {"text": text}} for text in ("x" * 8001, 5, "  ")),
    )
    for at, frame in zip((3, 3.1, 3.2, 3.3), wrong, strict=True):
        await world.at(at)
        socket.send(frame)
    await world.at(END)
    assert (socket.times("ERROR"), world.asked, socket.closed) == ([3, 3.1, 3.2, 3.3], [], None)


@trace()
async def test_23_a_client_that_comes_back_finds_its_conversation_and_no_welcome(world: World) -> None:
    first = await world.connect()
    await say(world, first, (3, "hi."))
    await world.at(8)
    first.drop()
    await world.at(9)
    second = await world.connect(name="b")
    await say(world, second, (10, "again."))
    await world.at(END)
    assert replies(first) == [4.0]
    assert [(at, kind) for at, kind, _ in second.got] == [(11.0, "AI_RESPONSE")]
    assert world.history() == [WELCOME, "hi.", "reply 1", "again.", "reply 2"]


@trace()
async def test_24_for_an_absent_user_nothing_is_asked(world: World) -> None:
    first = await world.connect()
    await say(world, first, (3, "i want"))
    await world.at(4)
    first.drop()
    await world.at(20)
    assert world.asked == []
    second = await world.connect(name="b")
    await world.at(END)
    assert (world.asked, replies(second)) == ([(25.0, "i want")], [26.0])


@trace()
async def test_25_an_answer_for_an_absent_user_waits_for_the_next_connection(world: World) -> None:
    first = await world.connect()
    await say(world, first, (3, "hi."))
    await world.at(3.5)
    first.drop()
    await world.at(10)
    second = await world.connect(name="b")
    assert replies(second) == [10.0]
    await say(world, second, (11, "next."))
    await world.at(END)
    assert (world.asked, replies(second)) == ([(3, "hi."), (18.0, "next.")], [10.0, 19.0])


@trace()
async def test_26_a_second_connection_takes_the_session_over_with_what_it_was_told(world: World) -> None:
    first = await world.connect()
    await say(world, first, (3, "i want"))
    await world.at(4)
    second = await world.connect(name="b")
    await say(world, second, (5, "tea."))
    await world.at(END)
    assert first.closed is not None
    assert first.closed[:2] == (4.0, 4001)
    assert (world.asked, replies(second)) == ([(5, "i want tea.")], [6.0])


@trace()
async def test_27_playback_goes_on_over_a_takeover(world: World) -> None:
    first = await world.connect()
    await say(world, first, (3, "hi."))
    await world.at(5)
    second = await world.connect(name="b")
    await say(world, second, (6, "x."))
    await world.at(END)
    assert replies(first) == [4.0]
    assert first.closed is not None
    assert first.closed[:2] == (5.0, 4001)
    assert (world.asked[1:], replies(second)) == ([(12.0, "x.")], [13.0])


@trace()
async def test_28_an_answer_in_the_making_goes_to_the_new_connection(world: World) -> None:
    first = await world.connect()
    await say(world, first, (3, "hi."))
    await world.at(3.5)
    second = await world.connect(name="b")
    await world.at(END)
    assert (replies(first), replies(second)) == ([], [4.0])


@trace()
async def test_29_a_free_client_id_may_be_spoken_for(world: World) -> None:
    socket = await world.connect()
    await world.at(3)
    socket.say("hi.", client_id="v")
    await world.at(END)
    assert replies(socket) == [4.0]
    assert socket.got[-1][2]["client_id"] == "v"
    assert (world.history("u"), world.history("v")) == ([WELCOME], ["hi.", "reply 1"])


@trace()
async def test_30_a_client_id_with_a_connection_of_its_own_may_not(world: World) -> None:
    own = await world.connect()
    other = await world.connect("v", name="b")
    await world.at(3)
    own.say("hi.", client_id="v")
    await world.at(END)
    assert own.times("ERROR") == [3.0]
    assert own.payloads("ERROR")[0]["client_id"] == "u"
    assert world.history("v") == [WELCOME]
    assert (len(other.got), world.asked) == (1, [])


@trace()
async def test_31_naming_oneself_changes_nothing(world: World) -> None:
    socket = await world.connect()
    await world.at(3)
    socket.say("hi.", client_id="u")
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(3, "hi.")], [4.0])


@trace()
async def test_32_two_clients_never_mix(world: World) -> None:
    one, other = await world.connect("u"), await world.connect("v", name="b")
    await world.at(3)
    one.say("p.")
    other.say("q")
    await world.at(END)
    assert (replies(one), replies(other)) == ([4.0], [9.0])
    assert (world.history("u")[1], world.history("v")[1]) == ("p.", "q")


@trace(ttl=10.0)
async def test_33_after_its_time_a_session_is_forgotten(world: World) -> None:
    first = await world.connect()
    await world.at(3)
    first.drop()
    await world.at(12.9)
    assert len(world.sessions) == 1
    await world.at(14)
    assert len(world.sessions) == 0
    second = await world.connect(name="b")
    assert [(at, payload["text"]) for at, _, payload in second.got] == [(14.0, WELCOME)]


@trace(ttl=10.0)
async def test_34_before_that_it_is_resumed(world: World) -> None:
    first = await world.connect()
    await world.at(3)
    first.drop()
    await world.at(12)
    second = await world.connect(name="b")
    await world.at(END)
    assert second.got == []
    assert len(world.sessions) == 1


@trace(silence=0.0)
async def test_35_without_a_silence_the_end_of_playback_answers(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (1, "x"))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(2.5, "x")], [3.5])


@trace(detector=NeverEnds)
async def test_36_a_detector_that_believes_nothing_leaves_it_to_silence(world: World) -> None:
    socket = await world.connect()
    await say(world, socket, (3, "hello there."))
    await world.at(END)
    assert (world.asked, replies(socket)) == ([(8.0, "hello there.")], [9.0])
