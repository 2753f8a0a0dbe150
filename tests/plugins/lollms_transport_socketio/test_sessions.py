"""Sessions that clients resume, choices that all sockets share, and connections that are recovered."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from lollms_kernel.testing import ServerProcess

from .engineio_by_hand import event, welcomed
from .session_steps import INSTANCES, KEYS, as_session, come_back, remembered, say
from .socketio_client import connected


def config(**settings: Any) -> dict[str, Any]:
    return {
        "defaults": {"ttt_binding": "echo"},
        "security": {"allowed_api_keys": KEYS},
        "transports": {"socketio": {"recovery_seconds": 5, **settings}},
    }


@pytest.fixture(scope="module")
def keeping() -> Iterator[ServerProcess]:
    with ServerProcess(config(), INSTANCES) as server:
        yield server


@pytest.mark.parametrize("store", ["memory", "file"])
async def test_a_session_is_resumed_with_its_conversation_and_its_choice(
    keeping: ServerProcess, tmp_path: Path, store: str
) -> None:
    session = str(uuid.uuid4())
    if store == "memory":
        await say(keeping.url, session)
        told = await come_back(keeping.url, session)
    else:  # across a restart of the server
        with ServerProcess(config(store="file"), INSTANCES, root=tmp_path) as before:
            await say(before.url, session)
        with ServerProcess(config(store="file"), INSTANCES, root=tmp_path) as after:
            told = await come_back(after.url, session)

    assert told == ["My name is Ada.", "My name is Ada.", "now"]


async def test_without_a_session_nothing_is_kept(keeping: ServerProcess) -> None:
    async with connected(keeping.url, auth={"api_key": KEYS[0]}) as client:
        await client.answer("My name is Ada.", personality=0)
        assert "session" not in [name for name, _ in client.heard]
    async with connected(keeping.url, auth={"api_key": KEYS[0]}) as client:
        assert await remembered(client) == ["now"]


async def test_nobody_resumes_the_session_of_another_key(keeping: ServerProcess) -> None:
    session = str(uuid.uuid4())
    await say(keeping.url, session)

    async with connected(keeping.url, auth=as_session(session, KEYS[1])) as client:
        assert (await client.wait_for("session"))["resumed"] is False
        assert await remembered(client) == ["now"]


async def test_a_second_socket_takes_the_session_over(keeping: ServerProcess) -> None:
    session = str(uuid.uuid4())
    async with connected(keeping.url, auth=as_session(session)) as first:
        await first.ask("select_binding", {"binding_name": "slow"}, reply="select_binding")
        await first.send("generate_text", {"prompt": "go", "personality": 0})
        await first.wait_for("text_chunk", count=3)
        async with connected(keeping.url, auth=as_session(session)) as second:
            async with asyncio.timeout(20):
                await first.gone.wait()
            assert (await second.wait_for("session"))["turns"] == 2
            said = await remembered(second)

    assert said[0] == "go"
    assert said[1].startswith("word word")


@pytest.fixture(scope="module")
def forgetful() -> Iterator[ServerProcess]:
    with ServerProcess(config(history_limit=1024, max_sessions=1, selection="shared"), INSTANCES) as server:
        yield server


async def test_the_oldest_turns_of_a_long_conversation_are_forgotten(forgetful: ServerProcess) -> None:
    async with connected(forgetful.url, auth={"api_key": KEYS[0]}) as client:
        await client.ask("select_binding", {"binding_name": "echo"}, reply="select_binding")
        for letter in "abc":
            await client.answer(letter * 200, personality=0)

        said = await remembered(client)

    assert [text[0] for text in said] == ["b", "b", "c", "c", "n"]


async def test_of_too_many_sessions_the_oldest_are_forgotten(forgetful: ServerProcess) -> None:
    server = forgetful
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    await say(server.url, first, then="echo")  # which the second shares here
    await say(server.url, second)

    async with connected(server.url, auth=as_session(first)) as client:
        assert (await client.wait_for("session"))["resumed"] is False


# --- one choice for all -----------------------------------------------------------------------------------


async def test_a_setting_brings_back_the_choice_that_all_sockets_share(forgetful: ServerProcess) -> None:
    server = forgetful
    auth = {"api_key": KEYS[0]}
    async with connected(server.url, auth=auth) as mine, connected(server.url, auth=auth) as theirs:
        await mine.ask("select_binding", {"binding_name": "counting"}, reply="select_binding")

        assert (await theirs.answer("hello")).startswith("0 1 2")
        async with connected(server.url, auth=auth) as later:
            assert (await later.answer("hello")).startswith("0 1 2")


# --- recovery ---------------------------------------------------------------------------------------------


async def hear(socket: ClientConnection, count: int) -> list[list[Any]]:
    """So many events, pings left out."""
    heard: list[list[Any]] = []
    async with asyncio.timeout(30):
        while len(heard) < count:
            packet = str(await socket.recv())
            if packet.startswith("42"):
                heard.append(json.loads(packet[2:]))
    return heard


@pytest.mark.parametrize("noticed", [True, False])
async def test_what_was_missed_is_sent_again_and_the_answer_goes_on(
    keeping: ServerProcess, noticed: bool
) -> None:
    offer = {"api_key": KEYS[0], "recovery": True}
    async with welcomed(keeping.url, offer) as (first, told):
        await first.send(event("select_binding", {"binding_name": "counting"}))
        await first.send(event("generate_text", {"prompt": "go"}))
        before = await hear(first, 6)  # the choice and five chunks
        if noticed:
            first.transport.abort()
        back = {**offer, "pid": told["pid"], "offset": before[-1][-1]}
        async with welcomed(keeping.url, back) as (second, again):
            after = await hear(second, 36)

    assert again["pid"] == told["pid"]
    chunks = [heard[1]["chunk"] for heard in [*before[1:], *after[:-1]]]
    assert "".join(chunks) == "".join(f"{number} " for number in range(40))
    assert after[-1][0] == "text_generated"
    assert [int(heard[-1]) for heard in [*before, *after]] == list(range(1, 43))


async def test_others_cannot_recover_it_and_wrong_offers_begin_anew(keeping: ServerProcess) -> None:
    offer = {"api_key": KEYS[0], "recovery": True}
    async with welcomed(keeping.url, offer) as (_, told):
        for wrong in (
            {**offer, "api_key": KEYS[1], "pid": told["pid"], "offset": "0"},
            {**offer, "pid": told["pid"], "offset": "77"},
            {**offer, "pid": told["pid"], "offset": "x"},
            {**offer, "pid": "nobody", "offset": "1"},
        ):
            async with welcomed(keeping.url, wrong) as (_, again):
                assert again["pid"] != told["pid"], wrong


async def test_clients_that_do_not_offer_it_hear_no_numbers(keeping: ServerProcess) -> None:
    async with welcomed(keeping.url, {"api_key": KEYS[0]}) as (socket, told):
        await socket.send(event("list_active_personalities"))
        (heard,) = await hear(socket, 1)

    assert "pid" not in told
    assert len(heard) == 2


async def test_whoever_says_goodbye_or_stays_away_stops_its_work(lollms_server: Any) -> None:
    narrow = {
        **config(recovery_seconds=0.5),
        "resource_manager": {"gpu_strategy": "semaphore", "gpu_limit": 1, "queue_timeout": 30},
    }
    instances = {
        "slow": {**INSTANCES["slow"], "requires_gpu": True},
        "echo": {"type": "dummy_binding", "requires_gpu": True},
    }
    server = lollms_server(narrow, instances)
    offer = {"api_key": KEYS[0], "recovery": True}
    for goodbye in (True, False):
        async with welcomed(server.url, offer) as (socket, _):
            await socket.send(event("select_binding", {"binding_name": "slow"}))
            await socket.send(event("generate_text", {"prompt": "go"}))
            await hear(socket, 3)
            if goodbye:
                await socket.send("41")
            else:
                socket.transport.abort()
            async with connected(server.url, auth={"api_key": KEYS[1]}) as other:
                assert await other.answer("my turn") == "my turn"
