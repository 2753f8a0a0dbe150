"""Live servers that the tests of one module share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lollms_kernel.testing import ServerProcess

from .socketio_client import Client, connected

INSTANCES: dict[str, dict[str, Any]] = {
    "echo": {"type": "dummy_binding", "model": "echo-model"},
    "seen": {"type": "dummy_binding", "model": "seen-model", "echo_system": True},
    "slow": {
        "type": "dummy_binding",
        "model": "slow-model",
        "chunks": ["word "] * 1000,
        "stream_chunk_delay": 0.02,
    },
    "other": {"type": "dummy_binding", "model": "other-model", "reply": "from the other"},
    "mute": {"type": "dummy_binding", "model": "mute-model", "tokenizer": False},
    "failing": {"type": "dummy_binding", "model": "fail-model", "chunks": ["a", "b", "c"], "fail_after": 2},
    "thinking": {"type": "dummy_binding", "model": "think-model", "reply": "<think>hm</think>Yes."},
}
CONFIG: dict[str, Any] = {"defaults": {"ttt_binding": "echo"}}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with scripted bindings and no API key."""
    with ServerProcess(CONFIG, INSTANCES) as server:
        yield server


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    """A client of that server, by WebSocket."""
    async with connected(server.url) as client:
        yield client
