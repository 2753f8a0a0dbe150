"""What tests of sessions do again and again."""

from __future__ import annotations

import json
from typing import Any

from .socketio_client import Client, connected

INSTANCES: dict[str, dict[str, Any]] = {
    "echo": {"type": "dummy_binding"},
    "seen": {"type": "dummy_binding", "echo_system": True},
    "slow": {"type": "dummy_binding", "chunks": ["word "] * 1000, "stream_chunk_delay": 0.02},
    "counting": {
        "type": "dummy_binding",
        "chunks": [f"{number} " for number in range(40)],
        "stream_chunk_delay": 0.02,
    },
}
KEYS = ["first-key-of-the-sessions", "second-key-of-the-sessions"]


def as_session(session: str, key: str = KEYS[0]) -> dict[str, str]:
    return {"api_key": key, "session": session}


async def remembered(client: Client) -> list[str]:
    """What was said on this session, as the binding hears it."""
    await client.ask("select_binding", {"binding_name": "seen"}, reply="select_binding")
    received = json.loads(await client.answer("now", personality=0))
    return [turn["content"] for turn in received["messages"]]


async def say(url: str, session: str, *, then: str = "slow") -> None:
    """Say something to remember, and leave with the binding `then` chosen."""
    async with connected(url, auth=as_session(session)) as client:
        assert (await client.wait_for("session"))["resumed"] is False
        await client.answer("My name is Ada.", personality=0)
        await client.ask("select_binding", {"binding_name": then}, reply="select_binding")


async def come_back(url: str, session: str) -> list[str]:
    async with connected(url, auth=as_session(session)) as client:
        assert await client.wait_for("session") == {
            "resumed": True,
            "turns": 2,
            "binding_name": "slow",
            "model_name": None,
            "personalities": ["lollms"],
            "personality": -1,
        }
        return await remembered(client)
