"""A live server whose model repeats what it is told, with a port of the protocol's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.server_process import free_port

SETTINGS = {
    "turn_detector": "punct",
    "welcome": "Welcome.",
    "fixed_tts_duration": 0.5,
    "max_response_timeout": 0.5,
    "max_incomplete_sentences": 3,
}


class ChatServer:
    """A running server and where its voice chat is."""

    def __init__(self, process: ServerProcess, port: int) -> None:
        self.process = process
        self.port = port
        self.own = f"ws://127.0.0.1:{port}"
        self.main = f"ws://127.0.0.1:{process.port}/ws/chat"

    @classmethod
    def make(cls, settings: dict[str, Any] | None = None, **options: Any) -> ChatServer:
        """Not running yet: `with server.process:` runs it."""
        port = free_port()
        section = {"port": port, **SETTINGS, **(settings or {})}
        config = {"transports": {"ws_chat": section}, "defaults": {"ttt_binding": "echo"}}
        instances = {
            "echo": {"type": "dummy_binding", "delay": 0.1},
            "slow": {"type": "dummy_binding", "delay": 1.0},
            "failing": {"type": "dummy_binding", "fail_after": 0},
        }
        config |= options.pop("config", {})
        return cls(ServerProcess(config, instances, extra_ports=True, **options), port)


@pytest.fixture(scope="module")
def chat_server() -> Iterator[ChatServer]:
    """A running server without keys."""
    server = ChatServer.make()
    with server.process:
        yield server
