"""Two server processes behind one address, connected by a real Redis."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import socketio

from lollms_kernel.testing import ServerProcess

from .session_steps import INSTANCES, KEYS, as_session, come_back, remembered, say
from .socketio_client import connected, unconnected

CHANNEL = "the-tests"


@pytest.fixture(scope="module")
def two_servers(redis_url: str) -> Iterator[list[ServerProcess]]:
    settings = {"redis_url": redis_url, "redis_channel": CHANNEL}
    config = {
        "defaults": {"ttt_binding": "echo"},
        "security": {"allowed_api_keys": KEYS},
        "transports": {"socketio": settings},
    }
    with ServerProcess(config, INSTANCES) as one, ServerProcess(config, INSTANCES) as other:
        yield [one, other]


@asynccontextmanager
async def one_address(servers: list[ServerProcess]) -> AsyncIterator[str]:
    """An address whose connections go to the servers by turns, as a balancer for TCP does it."""
    turns = itertools.cycle(servers)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", next(turns).port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(1 << 16):
                    target.write(data)
                    await target.drain()
            except OSError:
                pass
            finally:
                target.close()

        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))

    balancer = await asyncio.start_server(forward, "127.0.0.1", 0)
    try:
        # Python 3.12 would wait for connections at the end of `async with`
        yield f"http://127.0.0.1:{balancer.sockets[0].getsockname()[1]}"
    finally:
        balancer.close()


async def test_clients_of_both_processes_are_answered_at_once(two_servers: list[ServerProcess]) -> None:
    async with one_address(two_servers) as url, asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(answer(url, f"client {number}")) for number in range(8)]

    assert [task.result() for task in answers] == [f"client {number}" for number in range(8)]
    for server in two_servers:
        assert server.log().count("source=socketio") >= 4


async def answer(url: str, prompt: str) -> str:
    async with connected(url, auth={"api_key": KEYS[0]}) as client:
        return await client.answer(prompt)


async def test_a_session_goes_on_in_the_other_process(two_servers: list[ServerProcess]) -> None:
    session = str(uuid.uuid4())
    one, other = two_servers

    await say(one.url, session)

    assert await come_back(other.url, session) == ["My name is Ada.", "My name is Ada.", "now"]


async def test_a_session_is_taken_from_a_socket_of_the_other_process(
    two_servers: list[ServerProcess],
) -> None:
    session = str(uuid.uuid4())
    one, other = two_servers
    async with connected(one.url, auth=as_session(session)) as first:
        await first.ask("select_binding", {"binding_name": "slow"}, reply="select_binding")
        await first.send("generate_text", {"prompt": "go", "personality": 0})
        await first.wait_for("text_chunk", count=3)

        async with connected(other.url, auth=as_session(session)) as second:
            async with asyncio.timeout(20):
                await first.gone.wait()
            assert (await second.wait_for("session"))["turns"] == 2, "what was said there is here"
            said = await remembered(second)

    assert said[0] == "go"
    assert said[1].startswith("word word")


async def test_an_operators_program_reaches_the_sockets_of_both(
    two_servers: list[ServerProcess], redis_url: str
) -> None:
    operator = socketio.AsyncRedisManager(redis_url, channel=CHANNEL, write_only=True)
    async with (
        connected(two_servers[0].url, auth={"api_key": KEYS[0]}) as one,
        connected(two_servers[1].url, auth={"api_key": KEYS[0]}) as other,
    ):
        await operator.emit("notice", {"text": "The server restarts at noon."})

        for client in (one, other):
            assert await client.wait_for("notice") == {"text": "The server restarts at noon."}
    await operator.redis.aclose()


async def test_all_sockets_of_all_processes_can_share_one_choice(redis_url: str, lollms_server: Any) -> None:
    settings = {"redis_url": redis_url, "redis_channel": "shared-choice", "selection": "shared"}
    config = {"defaults": {"ttt_binding": "echo"}, "transports": {"socketio": settings}}
    one, other = lollms_server(config, INSTANCES), lollms_server(config, INSTANCES)
    async with connected(one.url) as mine, connected(other.url) as theirs:
        await mine.ask("select_binding", {"binding_name": "counting"}, reply="select_binding")

        assert (await theirs.answer("hello")).startswith("0 1 2")


async def test_a_redis_that_is_gone_is_said_and_harms_nobody_who_does_not_need_it(lollms_server: Any) -> None:
    settings = {"redis_url": "redis://127.0.0.1:1/0"}
    server = lollms_server(
        {"defaults": {"ttt_binding": "echo"}, "transports": {"socketio": settings}}, INSTANCES
    )

    async with unconnected() as refused:
        with pytest.raises(socketio.exceptions.ConnectionError):
            await refused.wire.connect(
                server.url, transports=["websocket"], auth={"session": str(uuid.uuid4())}, wait_timeout=30
            )
    async with connected(server.url) as client:
        assert await client.answer("hello") == "hello"

    assert refused.refused[0]["data"]["code"] == "unavailable"
    assert "store of sessions" in refused.refused[0]["message"]
