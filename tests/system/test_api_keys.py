"""API keys of a running server: limits, and changes without a restart."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from lollms_kernel.config.api_keys import hashed
from lollms_kernel.testing import ServerProcess

LIMIT = 60.0

SLOW = {"type": "dummy_binding", "chunks": ["word "] * 2000, "stream_chunk_delay": 0.02}
INSTANCES: dict[str, dict[str, Any]] = {"echo": {"type": "dummy_binding"}, "slow": SLOW}
DEFAULTS = {"ttt_binding": "echo"}


def entry(name: str, **limits: Any) -> dict[str, Any]:
    """A key that is its owner's name, hashed."""
    return {"name": name, "hash": hashed(f"key-of-{name}"), **limits}


def headers(name: str) -> dict[str, str]:
    return {"X-API-Key": f"key-of-{name}"}


def body(binding: str | None = None, **fields: Any) -> dict[str, Any]:
    item = {"type": "text", "role": "user_prompt", "data": "hi"}
    return {"input_data": [item], **({"binding_name": binding} if binding else {}), **fields}


def write_personality(root: Path, name: str) -> None:
    folder = root / "personal" / "personalities" / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"name: {name}\nauthor: a\nversion: 1\npersonality_description: d\npersonality_conditioning: c\n"
    )


def lollms(server: ServerProcess, *words: str) -> str:
    """Run a command on the server's configuration; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "lollms_kernel", *words, "--config-dir", str(server.config_dir)],
        cwd=server.root,
        env={name: value for name, value in os.environ.items() if not name.startswith("LOLLMS_")},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what the server does by itself within a second or so."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def status(server: ServerProcess, key: str | None) -> int:
    given = {} if key is None else {"X-API-Key": key}
    return httpx.get(f"{server.url}/api/v1/list_functions", headers=given, timeout=LIMIT).status_code


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with keys of all sorts."""
    root = tmp_path_factory.mktemp("keys")
    write_personality(root, "pirate")
    write_personality(root, "poet")
    keys = [
        "a-plain-key",
        entry("free"),
        entry("minute", requests_per_minute=3),
        entry("socket", requests_per_minute=1),
        entry("single", concurrent_streams=1),
        entry("bound", bindings=["echo"]),
        entry("actor", personalities=["pirate"]),
    ]
    config = {"security": {"allowed_api_keys": keys}, "defaults": DEFAULTS}
    with ServerProcess(config, INSTANCES, root=root) as running:
        yield running


# --- limits ---


def test_plain_and_hashed_keys_open(server: ServerProcess) -> None:
    assert status(server, "a-plain-key") == 200
    assert status(server, "key-of-free") == 200
    assert status(server, hashed("key-of-free")) == 401
    assert status(server, None) == 403


def test_too_many_requests_a_minute_are_429_with_the_time_to_wait(server: ServerProcess) -> None:
    url = f"{server.url}/api/v1/list_functions"
    answers = [httpx.get(url, headers=headers("minute"), timeout=LIMIT) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert "The API key 'minute' may make 3 requests per minute." in answers[3].json()["detail"]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    assert status(server, "key-of-free") == 200


async def test_a_websocket_is_limited_alike(server: ServerProcess) -> None:
    url = f"ws://127.0.0.1:{server.port}/api/v1/generate"
    codes = []
    for _ in range(2):
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(url, additional_headers=headers("socket"), proxy=None)
        codes.append(caught.value.response.status_code)

    assert codes[0] != 429
    assert codes[1] == 429
    assert "retry-after" in caught.value.response.headers


async def test_one_generation_at_a_time(server: ServerProcess) -> None:
    url = f"{server.url}/api/v1/generate"
    async with httpx.AsyncClient(timeout=LIMIT, headers=headers("single")) as client:
        async with client.stream("POST", url, json=body("slow", stream=True)) as first:
            assert await anext(first.aiter_lines())
            second = await client.post(url, json=body("echo"))
            listing = await client.get(f"{server.url}/api/v1/list_functions")
            other = await client.post(url, json=body("echo"), headers=headers("free"))
        assert (second.status_code, second.headers["retry-after"]) == (429, "1")
        assert "may run 1 generation at once" in second.json()["detail"]
        assert (listing.status_code, other.status_code) == (200, 200)

        async with asyncio.timeout(LIMIT):
            while (await client.post(url, json=body("echo"))).status_code == 429:
                pass  # the first one is being cleared away


def test_only_the_allowed_bindings(server: ServerProcess) -> None:
    def post(path: str, json: Any) -> httpx.Response:
        return httpx.post(f"{server.url}/api/v1/{path}", json=json, headers=headers("bound"), timeout=LIMIT)

    assert post("generate", body()).status_code == 200
    refused = post("generate", body("slow"))
    assert refused.status_code == 403
    assert (
        refused.json()["detail"] == "This API key may not use the binding instance 'slow'. It may use: echo."
    )
    assert post("tokenize", {"text": "x", "binding_name": "echo"}).status_code == 200
    assert post("tokenize", {"text": "x", "binding_name": "slow"}).status_code == 403


def test_only_the_allowed_personalities(server: ServerProcess) -> None:
    def post(**fields: Any) -> httpx.Response:
        url = f"{server.url}/api/v1/generate"
        return httpx.post(url, json=body(**fields), headers=headers("actor"), timeout=LIMIT)

    assert post(personality="pirate").status_code == 200
    assert post(personality="poet").status_code == 403
    assert post().status_code == 403
    assert "may only be used with a personality" in post().json()["detail"]


# --- changes while it runs ---


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose keys change."""
    config = {"security": {"allowed_api_keys": ["first-key"]}, "defaults": DEFAULTS}
    with ServerProcess(config, INSTANCES, root=tmp_path) as running:
        yield running


def test_keys_come_and_go_without_a_restart(changing: ServerProcess) -> None:
    pid = changing.pid

    key = lollms(changing, "keys", "add", "anna").strip()
    wait_until(lambda: status(changing, key) == 200)
    lollms(changing, "keys", "revoke", "anna")
    wait_until(lambda: status(changing, key) == 401)

    assert status(changing, "first-key") == 200
    assert changing.pid == pid
    assert key not in changing.log()


def test_the_answer_of_a_revoked_key_ends(changing: ServerProcess) -> None:
    key = lollms(changing, "keys", "add", "anna").strip()
    wait_until(lambda: status(changing, key) == 200)
    url = f"{changing.url}/api/v1/generate"
    given = {"X-API-Key": key}

    with httpx.stream("POST", url, json=body("slow", stream=True), headers=given, timeout=LIMIT) as answer:
        lines = answer.iter_lines()
        assert next(lines)
        lollms(changing, "keys", "revoke", "anna")
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line]

    assert events[-1]["type"] == "error"
    assert "The API key was revoked." in events[-1]["content"]


def test_a_broken_file_changes_nothing(changing: ServerProcess) -> None:
    file = changing.config_dir / "main_config.yaml"
    good = file.read_text()

    file.write_text("security: {allowed_api_keys: [")
    wait_until(lambda: "the running configuration stays" in changing.log())
    assert status(changing, "first-key") == 200
    assert status(changing, None) == 403

    file.write_text(good.replace("first-key", "other-key"))
    wait_until(lambda: status(changing, "other-key") == 200)
    assert status(changing, "first-key") == 401


def test_a_server_that_others_reach_is_never_without_a_key(tmp_path: Path) -> None:
    config = {
        "server": {"host": "0.0.0.0"},
        "security": {"allowed_api_keys": ["only-key"]},
        "defaults": DEFAULTS,
    }
    with ServerProcess(config, INSTANCES, root=tmp_path) as exposed:
        lollms(exposed, "keys", "revoke", hashed("only-key")[7:23])
        wait_until(lambda: status(exposed, "only-key") == 401)

        assert status(exposed, None) == 403


def test_a_server_of_this_machine_alone_is_open_again_without_its_last_key(changing: ServerProcess) -> None:
    lollms(changing, "keys", "revoke", hashed("first-key")[7:23])

    wait_until(lambda: status(changing, None) == 200)
    assert httpx.get(f"{changing.url}/health").json()["api_key_required"] is False


def test_an_older_configuration_serves_and_says_what_it_left_out(tmp_path: Path) -> None:
    config = {"__version__": "0.3.2", "server": {"host": "127.0.0.1", "reload": True}, "defaults": DEFAULTS}

    with ServerProcess(config, INSTANCES, root=tmp_path) as server:
        assert status(server, None) == 200
        assert "server.reload is not used any more." in server.log()
