"""The npm clients that applications use, under node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lollms_kernel.testing import ServerProcess

from .node_scripts import run_script

KEY = "key-of-the-node-clients"


@pytest.fixture(scope="module")
def node_server() -> Iterator[ServerProcess]:
    config = {"defaults": {"ttt_binding": "echo"}, "security": {"allowed_api_keys": [KEY]}}
    slow = {"type": "dummy_binding", "chunks": ["word "] * 1000, "stream_chunk_delay": 0.02}
    with ServerProcess(config, {"echo": {"type": "dummy_binding"}, "slow": slow}) as server:
        yield server


@pytest.mark.parametrize("version", ["4.4", "4.8"])
async def test_a_whole_conversation_over_every_transport(node_server: ServerProcess, version: str) -> None:
    ways = {"websocket": "websocket", "polling": "polling", "polling,websocket": "websocket"}

    async with asyncio.TaskGroup() as tasks:
        runs = {
            way: tasks.create_task(
                run_script("conversation.mjs", version, node_server.url, way, json.dumps({"token": KEY}))
            )
            for way in ways
        }

    for way, used in ways.items():
        assert runs[way].result()["transport"] == used


@pytest.mark.parametrize("version", ["4.4", "4.8"])
async def test_a_refused_client_is_told_why(node_server: ServerProcess, version: str) -> None:
    told = await run_script("conversation.mjs", version, node_server.url, "polling", '{"token": "wrong"}')

    assert told["refused"]["message"] == "Invalid API Key provided."
    assert told["refused"]["data"]["code"] == "unauthorized"


async def test_nothing_is_lost_when_the_connection_breaks_and_the_client_offers_recovery(
    lollms_server: Any,
) -> None:
    counting = {
        "type": "dummy_binding",
        "chunks": [f"{number} " for number in range(60)],
        "stream_chunk_delay": 0.02,
    }
    server = lollms_server({"defaults": {"ttt_binding": "counting"}}, {"counting": counting})

    told = await run_script("recovery.mjs", server.url)

    assert told == {"chunks": 60, "recovered": True}
