"""Figures of the voice chat: what the protocol adds with many sessions, and a restart with many stored ones."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import websockets
from websockets.asyncio.client import ClientConnection

from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.server_process import free_port

from .figures import Figure

SESSIONS = 500
TURNS = 3
PAUSE = 5.0
STORED = 1000
SETTINGS = {
    "turn_detector": "always",
    "welcome": "",
    "fixed_tts_duration": 0.001,
    "messages_per_second": 1000.0,
    "log_text": False,
}


def voice_chat_figures() -> list[Figure]:
    """All of them."""
    return [*asyncio.run(many_sessions()), *asyncio.run(restart())]


async def many_sessions(sessions: int = SESSIONS, turns: int = TURNS) -> list[Figure]:
    """Each session says something, waits for the dummy's echo, and says the next thing five seconds after the last.

    `at the same moment`: all of them say something at once. The lag of the server's loop is how late a page of
    it, asked for every 20 ms on a kept connection, is answered; it is idle otherwise.
    """
    async with _server(
        {"resource_manager": {"max_running": 2 * sessions, "max_waiting": sessions}}
    ) as server:
        alone = await _latencies(server, 1, 100, pause=0.02)
        added_alone = statistics.mean(alone) - await _mean_reply(server)
        steady_lag: list[float] = []
        async with _watched(server, steady_lag):
            steady = await _latencies(server, sessions, turns, pause=PAUSE)
        added = statistics.mean(steady) - await _mean_reply(server)
        burst_lag: list[float] = []
        async with _watched(server, burst_lag):
            burst = await _latencies(server, sessions, 2, pause=1.0, together=True)
        memory = _resident(server.pid)
    what = f"{sessions} sessions"
    return [
        Figure("voice chat, one session: input to answer", "ms", tuple(alone)),
        Figure("voice chat, one session: of that added by the transport (mean)", "ms", (added_alone,)),
        Figure(f"voice chat, {what}, each every {PAUSE:g} s: input to answer", "ms", tuple(steady)),
        Figure(
            f"voice chat, {what}, each every {PAUSE:g} s: of that added by the transport (mean)",
            "ms",
            (added,),
        ),
        Figure(
            f"voice chat, {what}, each every {PAUSE:g} s: lag of the server's loop", "ms", tuple(steady_lag)
        ),
        Figure(f"voice chat, {what} at the same moment: input to answer", "ms", tuple(burst)),
        Figure(f"voice chat, {what} at the same moment: lag of the server's loop", "ms", tuple(burst_lag)),
        Figure(f"voice chat, server with {what}: memory", "MiB", (memory,)),
    ]


async def restart(stored: int = STORED) -> list[Figure]:
    """Stop with a signal while `stored` sessions are connected, start again, and connect all of them again."""
    with tempfile.TemporaryDirectory(prefix="lollms-bench-") as folder:
        port = free_port()
        process = _process({}, Path(folder), port)
        address = f"ws://127.0.0.1:{port}"
        with process:
            async with AsyncExitStack() as stack:
                for number in range(stored):
                    socket = await stack.enter_async_context(_connected(address, f"stored-{number}"))
                    await _say(socket, "Remember this.")
                began = time.perf_counter()
                os.kill(process.pid, signal.SIGTERM)
                await asyncio.to_thread(process.stop)
                stopping = time.perf_counter() - began
        began = time.perf_counter()
        with process:
            starting = time.perf_counter() - began
            began = time.perf_counter()
            resumed = 0
            for number in range(stored):
                async with _connected(address, f"stored-{number}", "session") as socket:
                    message = json.loads(await socket.recv())
                    resumed += message["payload"]["resumed"] and message["payload"]["history_len"] == 2
            connecting = time.perf_counter() - began
    assert resumed == stored, f"only {resumed} of {stored} sessions came back"
    what = f"{stored} stored sessions"
    return [
        Figure(f"voice chat, {what}: stop, all stored", "s", (stopping,)),
        Figure(f"voice chat, {what}: start to healthy", "s", (starting,)),
        Figure(f"voice chat, {what}: connect and resume, each", "ms", (1000 * connecting / stored,)),
    ]


def _process(config: dict[str, Any], root: Path, port: int) -> ServerProcess:
    whole = {
        **config,
        "transports": {"ws_chat": {"port": port, **SETTINGS}},
        "defaults": {"ttt_binding": "dummy"},
        "logging": {"log_level": "WARNING"},
    }
    return ServerProcess(whole, {"dummy": {"type": "dummy_binding"}}, root=root, extra_ports=True)


class _Running:
    def __init__(self, process: ServerProcess, port: int) -> None:
        self.pid = process.pid
        self.address = f"ws://127.0.0.1:{port}"
        self.page = f"http://127.0.0.1:{port}/healthz"
        self.replies = (0.0, 0.0)


@asynccontextmanager
async def _server(config: dict[str, Any]) -> AsyncIterator[_Running]:
    with tempfile.TemporaryDirectory(prefix="lollms-bench-") as folder:
        port = free_port()
        with _process(config, Path(folder), port) as process:
            yield _Running(process, port)


@asynccontextmanager
async def _connected(address: str, client_id: str, features: str = "") -> AsyncIterator[ClientConnection]:
    url = f"{address}?clientId={client_id}&features={features}"
    async with websockets.connect(url, proxy=None, compression=None, ping_interval=None) as socket:
        yield socket


async def _say(socket: ClientConnection, text: str) -> float:
    """Milliseconds until the answer."""
    began = time.perf_counter()
    await socket.send(json.dumps({"type": "USER_INPUT", "payload": {"text": text}}))
    message = json.loads(await socket.recv())
    assert message["type"] == "AI_RESPONSE", message
    return 1000 * (time.perf_counter() - began)


async def _latencies(
    server: _Running, sessions: int, turns: int, *, pause: float, together: bool = False
) -> list[float]:
    ready = asyncio.Barrier(sessions)

    async def talk(number: int) -> list[float]:
        client_id = f"{sessions}-{turns}-{together}-{number}"
        async with slots, _connected(server.address, client_id) as socket:
            slots.release()
            await ready.wait()
            if not together:
                await asyncio.sleep(pause * number / sessions)
            times = []
            for turn in range(turns):
                began = time.perf_counter()
                times.append(await _say(socket, f"This is turn {turn} of session {number}."))
                await asyncio.sleep(max(0.002, pause - (time.perf_counter() - began)))
            await slots.acquire()
            return times

    slots = asyncio.Semaphore(50)  # so many connect at once
    measured = await asyncio.gather(*(talk(number) for number in range(sessions)))
    return [sample for times in measured for sample in times]


@asynccontextmanager
async def _watched(server: _Running, lags: list[float]) -> AsyncIterator[None]:
    async def watch() -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                began = time.perf_counter()
                await http.get(server.page)
                lags.append(1000 * (time.perf_counter() - began))
                await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _mean_reply(server: _Running) -> float:
    """Milliseconds that the kernel took for an answer since the last call, on average."""
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(server.page.replace("healthz", "metrics"))).text
    name = "lollms_ws_chat_reply_seconds"
    total, count = (
        float(re.findall(rf"^{name}_{part} (\S+)$", text, re.MULTILINE)[0]) for part in ("sum", "count")
    )
    before, server.replies = server.replies, (total, count)
    return 1000 * (total - before[0]) / (count - before[1])


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024
