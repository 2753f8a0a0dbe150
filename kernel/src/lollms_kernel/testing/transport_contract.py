"""What every protocol promises on a live server, as a pytest class: subclass it and say how a client asks."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import msgspec
import pytest

from .server_process import ServerProcess

KEY = "contract-key-1"
LIMIT = 30.0
SLOW = {"chunks": ["word "] * 500, "stream_chunk_delay": 0.02, "requires_gpu": True}
INSTANCES: dict[str, dict[str, Any]] = {
    "echo": {"type": "dummy_binding", "model": "echo-model"},
    "slow": {"type": "dummy_binding", "model": "slow-model", **SLOW},
    "gpu": {"type": "dummy_binding", "model": "gpu-model", "requires_gpu": True},
    "crashing": {
        "type": "dummy_binding",
        "model": "crash-model",
        "chunks": ["a", "b", "c"],
        "crash_after": 2,
    },
    "failing": {"type": "dummy_binding", "model": "fail-model", "chunks": ["a", "b", "c"], "fail_after": 2},
}
CONFIG: dict[str, Any] = {
    "defaults": {"ttt_binding": "echo"},
    "security": {"allowed_api_keys": [KEY]},
    "resource_manager": {"gpu_strategy": "semaphore", "gpu_limit": 1, "queue_timeout": 20},
}


class Reply(msgspec.Struct, frozen=True):
    """What a client got: the whole text, or an error (its text as the client sees it)."""

    text: str = ""
    error: str | None = None


class TransportContract:
    """Subclass it as `class TestMine(TransportContract)` and implement `ask` and `stream`."""

    transports: ClassVar[dict[str, Any]] = {}
    """The `transports` section of the server's configuration."""

    @abstractmethod
    def ask(self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY) -> Reply:
        """Ask without streaming (or collect the stream, where the protocol always streams)."""

    @abstractmethod
    def stream(
        self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY
    ) -> AbstractContextManager[Iterator[str]]:
        """The pieces of the answer as they come; an error is raised as RuntimeError; leaving disconnects."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[ServerProcess]:
        """A live server with scripted bindings and one API key."""
        with ServerProcess({**CONFIG, "transports": cls.transports}, INSTANCES) as server:
            yield server

    def test_an_answer_comes_back_whole(self, server: ServerProcess) -> None:
        assert self.ask(server.url, "Good morning to you").text == "Good morning to you"

    def test_a_streamed_answer_comes_in_pieces_that_make_the_whole(self, server: ServerProcess) -> None:
        with self.stream(server.url, "one two three") as pieces:
            got = list(pieces)
        assert len(got) > 1
        assert "".join(got) == "one two three"

    def test_without_a_key_nothing_is_served(self, server: ServerProcess) -> None:
        assert self.ask(server.url, "hello", key=None).error
        assert self.ask(server.url, "hello", key="wrong").error

    def test_unknown_binding_is_an_error_that_names_it(self, server: ServerProcess) -> None:
        reply = self.ask(server.url, "hello", binding="no_such_binding")
        assert reply.error is not None
        assert "no_such_binding" in reply.error

    def test_many_clients_are_served_at_once_and_do_not_mix(self, server: ServerProcess) -> None:
        prompts = [f"client {number} says {'word ' * number}end" for number in range(12)]
        with ThreadPoolExecutor(12) as pool:
            replies = list(pool.map(lambda prompt: self.ask(server.url, prompt), prompts))
        assert [reply.text for reply in replies] == prompts

    def test_a_client_that_leaves_frees_the_gpu_for_the_next(self, server: ServerProcess) -> None:
        with self.stream(server.url, "anything", binding="slow") as pieces:
            next(pieces)
        started = time.monotonic()
        assert self.ask(server.url, "my turn", binding="gpu").text == "my turn"
        assert time.monotonic() - started < LIMIT / 4, "the abandoned stream went on"

    def test_a_failing_binding_ends_the_stream_with_an_error(self, server: ServerProcess) -> None:
        got: list[str] = []
        with pytest.raises(RuntimeError), self.stream(server.url, "x", binding="failing") as pieces:
            got.extend(pieces)
        assert self.ask(server.url, "still here").text == "still here"

    def test_a_crashing_worker_ends_its_stream_with_an_error_and_comes_back(
        self, server: ServerProcess
    ) -> None:
        for _ in range(2):
            with pytest.raises(RuntimeError), self.stream(server.url, "x", binding="crashing") as pieces:
                for _piece in pieces:
                    pass
        assert self.ask(server.url, "still here").text == "still here"

    def test_the_key_is_never_in_the_log(self, server: ServerProcess) -> None:
        self.ask(server.url, "hello")
        assert KEY not in server.log()
