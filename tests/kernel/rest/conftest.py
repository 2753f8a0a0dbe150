"""A live server with scripted bindings, and clients that talk to it over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from lollms_kernel.testing import ServerProcess

DUMMY = {"type": "dummy_binding"}
INSTANCES: dict[str, dict[str, Any]] = {
    "echo": {**DUMMY, "model": "echo-model", "context_size": 2048},
    "system": {**DUMMY, "echo_system": True},
    "vision": {**DUMMY, "echo_system": True, "input_modalities": ["text", "image", "document"]},
    "thinker": {**DUMMY, "chunks": ["a <th", "ink>x", " y</TH", "INK> b", "<think></think>", " c"]},
    "brooder": {**DUMMY, "chunks": ["a <think>never ends"]},
    "whole": {**DUMMY, "reply": "all at once", "streaming": False},
    "painter": {**DUMMY, "model": "paint-model", "output_modalities": ["image"]},
    "speaker": {**DUMMY, "output_modalities": ["audio"]},
    "listener": {**DUMMY, "reply": "I heard it.", "input_modalities": ["audio"]},
    "mute": {**DUMMY, "tokenizer": False},
    "slow": {**DUMMY, "chunks": ["word "] * 1000, "stream_chunk_delay": 0.05, "requires_gpu": True},
    "stuck": {**DUMMY, "delay": 3600, "requires_gpu": True},
    "quick": {**DUMMY, "requires_gpu": True},
    "failing": {**DUMMY, "chunks": ["a", "b", "c"], "fail_after": 2},
    "failing_first": {**DUMMY, "fail_after": 0},
    "crashing": {**DUMMY, "chunks": ["a", "b", "c"], "crash_after": 2},
    "misspelt": {**DUMMY, "contxt_size": 7},
    "strange": {"type": "no_such_type"},
}
CONFIG: dict[str, Any] = {
    "defaults": {
        "ttt_binding": "echo",
        "tti_binding": "painter",
        "tts_binding": "speaker",
        "default_max_output_tokens": 77,
    },
    "resource_manager": {"gpu_strategy": "semaphore", "gpu_limit": 1, "queue_timeout": 2},
}
LIMIT = 30.0


def prompt(text: str, **fields: Any) -> dict[str, Any]:
    """The body that asks `text`."""
    return {"input_data": [{"type": "text", "role": "user_prompt", "data": text}], **fields}


def read_events(body: bytes) -> list[dict[str, Any]]:
    """The events of a whole stream; fails where the framing is not exactly the published one."""
    blocks = body.split(b"\n\n")
    assert blocks.pop() == b"", "the stream does not end with a blank line"
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks), body
    events = [msgspec.json.decode(block.removeprefix(b"data: ")) for block in blocks]
    assert all(list(event) == ["type", "content", "thoughts", "metadata"] for event in events)
    return events


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """One server without API keys for all REST tests."""
    with ServerProcess(CONFIG, INSTANCES) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of the server."""
    with httpx.Client(base_url=server.url, timeout=LIMIT) as client:
        yield client


@pytest.fixture
def generate(client: httpx.Client) -> Callable[..., httpx.Response]:
    """Call it with a prompt and other fields of the body."""
    return lambda text="hi", **fields: client.post("/api/v1/generate", json=prompt(text, **fields))


@pytest.fixture
def events(client: httpx.Client) -> Callable[..., list[dict[str, Any]]]:
    """Call it with a prompt and other fields of the body to get the events of the streamed answer."""

    def stream(text: str = "hi", **fields: Any) -> list[dict[str, Any]]:
        response = client.post("/api/v1/generate", json=prompt(text, stream=True, **fields))
        assert response.status_code == 200, response.text
        return read_events(response.content)

    return stream
