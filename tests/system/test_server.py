"""The server as a process: the gate in front of every route, faults, signals and exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import websockets
from litestar import WebSocket, websocket

from lollms_kernel.config.load import load_config
from lollms_kernel.contracts import Listener, Transport
from lollms_kernel.errors import ConfigError
from lollms_kernel.hookspecs import hookimpl
from lollms_kernel.plugins import load_plugins
from lollms_kernel.server import serve as serve_here
from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.server_process import free_port

KEY = "secret-key-of-the-test"
SLOW = {"type": "dummy_binding", "chunks": ["word "] * 2000, "stream_chunk_delay": 0.02, "requires_gpu": True}
ORIGIN = "http://localhost:5173"


def body(prompt: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"input_data": [{"type": "text", "role": "user_prompt", "data": prompt}], **fields}


@pytest.fixture(scope="module")
def locked() -> Iterator[ServerProcess]:
    config = {
        "security": {"allowed_api_keys": [KEY, "another-key"]},
        "server": {"max_body_size": 10_000, "allowed_origins": [ORIGIN]},
        "defaults": {"ttt_binding": "echo"},
    }
    with ServerProcess(config, {"echo": {"type": "dummy_binding"}}) as server:
        yield server


@pytest.fixture(scope="module")
def unlocked() -> Iterator[ServerProcess]:
    config = {
        "defaults": {"ttt_binding": "echo"},
        "server": {"max_body_size": 10_000, "allowed_origins": [ORIGIN]},
    }
    with ServerProcess(config, {"echo": {"type": "dummy_binding"}}) as server:
        yield server


# --- the gate ---


def test_a_missing_or_empty_key_is_403_and_a_wrong_one_401(locked: ServerProcess) -> None:
    url = f"{locked.url}/api/v1/list_bindings"
    missing = {"detail": "API Key required but not provided."}
    assert (httpx.get(url).status_code, httpx.get(url).json()) == (403, missing)
    assert httpx.get(url, headers={"X-API-Key": ""}).status_code == 403
    wrong = httpx.get(url, headers={"X-API-Key": "nope"})
    assert (wrong.status_code, wrong.json()) == (401, {"detail": "Invalid API Key provided."})
    assert httpx.get(url, headers={"X-API-Key": KEY}).status_code == 200
    assert httpx.get(url, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_the_key_is_asked_for_before_the_body_is_looked_at(locked: ServerProcess) -> None:
    assert httpx.post(f"{locked.url}/api/v1/generate", content=b"{not json").status_code == 403


@pytest.mark.parametrize("path", ["/health", "/api/v1/health", "/", "/docs"])
def test_some_pages_need_no_key(locked: ServerProcess, path: str) -> None:
    assert httpx.get(locked.url + path).status_code == 200


def test_an_allowed_preflight_echoes_the_origin(locked: ServerProcess) -> None:
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    answer = httpx.options(f"{locked.url}/api/v1/generate", headers=headers)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["access-control-allow-headers"] == "x-api-key"


def test_another_origins_preflight_is_refused(locked: ServerProcess) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{locked.url}/api/v1/generate", headers=headers)
    assert (answer.status_code, answer.text) == (400, "Disallowed CORS origin")
    assert "access-control-allow-origin" not in answer.headers


def test_answers_and_refusals_carry_cors_headers_for_allowed_origins_only(locked: ServerProcess) -> None:
    refused = httpx.get(f"{locked.url}/api/v1/list_bindings", headers={"Origin": ORIGIN})
    assert refused.status_code == 403
    assert refused.headers["access-control-allow-origin"] == ORIGIN
    other = httpx.get(f"{locked.url}/health", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_a_web_page_of_another_origin_cannot_use_a_server_without_keys(unlocked: ServerProcess) -> None:
    url = f"{unlocked.url}/api/v1/generate"
    evil = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
    refused = httpx.post(url, headers=evil, json=body())
    assert refused.status_code == 403
    assert "server.allowed_origins" in refused.json()["detail"]
    assert httpx.post(url, headers={"Origin": ORIGIN}, json=body()).status_code == 200
    assert httpx.post(url, headers={"Origin": unlocked.url}, json=body()).status_code == 200
    assert httpx.post(url, json=body()).status_code == 200


def test_a_key_lets_any_origin_in(locked: ServerProcess) -> None:
    headers = {"Origin": "vscode-webview://abc", "X-API-Key": KEY}
    assert httpx.post(f"{locked.url}/api/v1/generate", headers=headers, json=body()).status_code == 200


def test_a_foreign_host_name_is_refused_on_loopback(unlocked: ServerProcess) -> None:
    answer = httpx.get(f"{unlocked.url}/health", headers={"Host": "rebound.example:9601"})
    assert answer.status_code == 400
    assert "server.allowed_hosts" in answer.json()["detail"]
    assert (
        httpx.get(f"{unlocked.url}/health", headers={"Host": f"localhost:{unlocked.port}"}).status_code == 200
    )


def test_a_body_over_the_limit_is_413_whether_it_says_its_length_or_not(unlocked: ServerProcess) -> None:
    url = f"{unlocked.url}/api/v1/generate"
    assert httpx.post(url, json=body("x" * 20_000)).status_code == 413

    def pieces() -> Iterator[bytes]:
        yield b'{"input_data": [{"type": "text", "role": "user_prompt", "data": "'
        for _ in range(20):
            yield b"x" * 1000

    assert httpx.post(url, content=pieces(), headers={"Content-Type": "application/json"}).status_code == 413
    assert httpx.post(url, json=body("x" * 5_000)).status_code == 200


def test_no_key_is_ever_logged(locked: ServerProcess) -> None:
    httpx.get(f"{locked.url}/api/v1/list_bindings", headers={"X-API-Key": KEY})
    assert KEY not in locked.log()


# --- stopping ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_open_streams_with_a_last_event_and_the_server_with_0(
    lollms_server: Callable[..., ServerProcess], number: int
) -> None:
    config = {"defaults": {"ttt_binding": "slow"}, "server": {"shutdown_grace": 0.2}}
    server = lollms_server(config, {"slow": SLOW})
    with httpx.stream("POST", f"{server.url}/api/v1/generate", json=body(stream=True), timeout=30) as answer:
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        codes: list[int] = []
        stopper = threading.Thread(target=lambda: codes.append(server.stop(number)))
        stopper.start()
        last = json.loads(list(lines)[-1].removeprefix("data: "))
    stopper.join()
    assert last["type"] == "error"
    assert "stopping" in last["content"]
    assert codes == [0]
    assert "Traceback" not in server.log()


def test_workers_end_with_the_server(lollms_server: Callable[..., ServerProcess]) -> None:
    config = {"defaults": {"ttt_binding": "echo"}}
    server = lollms_server(config, {"echo": {"type": "dummy_binding", "isolation": "process"}})
    assert httpx.post(f"{server.url}/api/v1/generate", json=body(), timeout=30).status_code == 200
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    assert children
    server.stop(signal.SIGTERM)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_workers_end_when_the_server_is_killed(lollms_server: Callable[..., ServerProcess]) -> None:
    config = {"defaults": {"ttt_binding": "echo"}}
    server = lollms_server(config, {"echo": {"type": "dummy_binding", "isolation": "process"}})
    assert httpx.post(f"{server.url}/api/v1/generate", json=body(), timeout=30).status_code == 200
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    watched = [os.pidfd_open(int(pid)) for pid in children]
    server.stop(signal.SIGKILL)
    import select

    for watch in watched:
        assert select.select([watch], [], [], 15)[0], "a worker outlived its server"
        os.close(watch)


# --- starting ---


def serve(
    tmp_path: Path, *options: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "lollms_kernel",
        "serve",
        "--config-dir",
        str(tmp_path / "lollms_configs"),
        *options,
    ]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, **(env or {})},
        check=False,
    )


def test_a_taken_port_is_one_clear_line_and_code_2(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = serve(tmp_path, "--port", str(port))
    assert ended.returncode == 2
    assert str(port) in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("server: {prot: 1}\n", "server.prot"),
        ("server: {port: many}\n", "server.port"),
        ("server: [\n", "line"),
        ("security: {allowed_api_keys: [12345]}\n", "allowed_api_keys"),
        ("server: {host: 0.0.0.0}\n", "allow_insecure_bind"),
        ("resource_manager: {gpu_strategy: magic}\n", "gpu_strategy"),
        ("transports: {rest: {colour: red}}\n", "colour"),
    ],
)
def test_a_bad_configuration_is_a_clear_error_and_code_2(tmp_path: Path, text: str, says: str) -> None:
    folder = tmp_path / "lollms_configs"
    folder.mkdir()
    (folder / "main_config.yaml").write_text(text)
    ended = serve(tmp_path, "--port", str(free_port()))
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bad_port_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    ended = serve(tmp_path, env={"LOLLMS_PORT": "many"})
    assert ended.returncode == 2
    assert "LOLLMS_PORT" in ended.stderr


def test_a_plugin_that_fails_to_import_is_listed_while_the_rest_serves(
    tmp_path: Path, lollms_server: Callable[..., ServerProcess]
) -> None:
    site = tmp_path / "site"
    info = site / "broken_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "broken_plugin.py").write_text("import a_module_that_is_not_there\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lollms]\nbroken-plugin = broken_plugin\n")
    env = {"PYTHONPATH": str(site)}
    server = lollms_server(
        {"defaults": {"ttt_binding": "echo"}}, {"echo": {"type": "dummy_binding"}}, env=env
    )
    assert httpx.post(f"{server.url}/api/v1/generate", json=body("hi")).json()["output"][0]["data"] == "hi"
    listing = subprocess.run(
        [sys.executable, "-m", "lollms_kernel", "plugins"],
        capture_output=True, text=True, timeout=60, env={**os.environ, **env}, cwd=tmp_path, check=True,
    ).stdout  # fmt: skip
    assert "broken-plugin" in listing
    assert "a_module_that_is_not_there" in listing
    assert "pip install a_module_that_is_not_there" in listing


class Beside(Transport):
    """A protocol with a port of its own that says hello."""

    name = "beside"
    port = 0
    required = False

    def listeners(self) -> list[Listener]:
        return [Listener(self.port, _hello, required=self.required)]


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@hookimpl
def _register_beside(register: Any) -> None:
    register(Beside)


@pytest.mark.parametrize("required", [False, True])
async def test_a_taken_default_port_is_told_and_a_configured_one_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, required: bool
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(Beside, "port", taken.getsockname()[1])
        monkeypatch.setattr(Beside, "required", required)
        plugins = load_plugins(
            [("beside", SimpleNamespace(register_transports=_register_beside))],
            environ={"LOLLMS_LOAD_PLUGINS": ""},
        )
        started = asyncio.Event()
        serving = asyncio.create_task(
            serve_here(
                load_config(tmp_path / "c"), plugins, "127.0.0.1", free_port(), lambda _: started.set()
            )
        )
        if required:
            with pytest.raises(ConfigError, match="Cannot listen on"):
                await asyncio.wait_for(serving, 30)
            return
        await asyncio.wait_for(started.wait(), 30)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(serving, 30) == 0
    assert "The server goes on without this port." in caplog.text


class Leaving(Transport):
    """A WebSocket protocol that says goodbye with a close code of its own, or takes too long over it."""

    name = "leaving"
    said = 1001
    hangs = False

    def __init__(self, kernel: Any, settings: Any) -> None:
        super().__init__(kernel, settings)
        self.open_sockets: list[Any] = []

    def route_handlers(self) -> list[Any]:
        @websocket("/leaving")
        async def chat(socket: WebSocket[Any, Any, Any]) -> None:
            await socket.accept()
            self.open_sockets.append(socket)
            await socket.receive()

        return [chat]

    async def drain(self, grace: float) -> None:
        for open_socket in self.open_sockets:
            await open_socket.close(self.said, "goodbye")
        if self.hangs:
            await asyncio.Event().wait()


@hookimpl
def _register_leaving(register: Any) -> None:
    register(Leaving)


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_protocol_ends_its_connections_in_its_own_way_when_the_server_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hangs: bool
) -> None:
    monkeypatch.setattr(Leaving, "hangs", hangs)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "main_config.yaml").write_text("server: {shutdown_grace: 0.1}")
    plugins = load_plugins(
        [("leaving", SimpleNamespace(register_transports=_register_leaving))],
        environ={"LOLLMS_LOAD_PLUGINS": ""},
    )
    started, port = asyncio.Event(), free_port()
    serving = asyncio.create_task(
        serve_here(load_config(tmp_path / "c"), plugins, "127.0.0.1", port, lambda _: started.set())
    )
    await asyncio.wait_for(started.wait(), 30)
    async with websockets.connect(f"ws://127.0.0.1:{port}/leaving", proxy=None) as client:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(client.wait_closed(), 30)
    assert (client.close_code, client.close_reason) == (1001, "goodbye")
    assert await asyncio.wait_for(serving, 30) == 0
    assert ("still ending connections" in caplog.text) == hangs
