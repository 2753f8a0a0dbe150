"""What Socket.IO costs: idle connections, many clients that generate at once, cancelling.

Clients are WebSockets that speak just enough of the protocol, in this process, so that both sides share the machine's
cores. `python -m benchmarks.socketio` takes these figures alone.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from lollms_kernel.testing import ServerProcess

from .figures import Figure

IDLE = 1000
AT_ONCE = 50
"""Connections that are opened at the same time."""

CLIENTS = 200
CHUNKS = 50
PACE = 0.25
"""Seconds between two chunks of one client: 800 chunks a second for all of them."""

CANCELS = 30


def socketio_figures() -> Iterator[Figure]:
    """All of them."""
    yield from asyncio.run(idle_connections())
    yield from asyncio.run(generating())
    yield from asyncio.run(cancelling())


async def idle_connections() -> list[Figure]:
    """Connections that have joined and do nothing."""
    with _server({}) as server:
        async with _joined(server):
            pass  # the library is imported and warm
        before = _resident_kib(server.pid)
        async with AsyncExitStack() as stack:
            started = time.perf_counter()
            for _ in range(IDLE // AT_ONCE):
                await asyncio.gather(*(stack.enter_async_context(_joined(server)) for _ in range(AT_ONCE)))
            took = time.perf_counter() - started
            used = _resident_kib(server.pid) - before
    return [
        Figure(f"socket.io: connecting, {IDLE} one {AT_ONCE} at a time", "/s", (IDLE / took,)),
        Figure(f"socket.io: memory of each of {IDLE} idle connections", "KiB", (used / IDLE,)),
    ]


async def generating() -> list[Figure]:
    """Many clients at once: as fast as it goes, then each at a reader's pace."""
    with _server({"chunks": ["token "] * CHUNKS * 4}) as server:
        async with _many(server) as sockets:
            started = time.perf_counter()
            counts = await asyncio.gather(*(_generate(socket) for socket in sockets))
            rate = sum(map(len, counts)) / (time.perf_counter() - started)
    with _server({"chunks": ["token "] * CHUNKS, "stream_chunk_delay": PACE}) as server:
        async with _many(server) as sockets:
            lag: list[float] = []
            watching = asyncio.create_task(_watch(server, lag))
            cpu = _cpu_seconds(server.pid)
            arrivals = await asyncio.gather(*(_generate(socket) for socket in sockets))
            cpu = _cpu_seconds(server.pid) - cpu
            watching.cancel()
    late = [
        1000 * (after - before - PACE)
        for times in arrivals
        for before, after in itertools.pairwise(times[:-1])
    ]
    lag.sort()
    who = f"socket.io: {CLIENTS} clients generating"
    return [
        Figure(f"{who}, events a second as fast as it goes", "/s", (rate,)),
        Figure(
            f"{who}, {CLIENTS / PACE:.0f} chunks a second: a chunk is late by, p50",
            "ms",
            (_quantile(late, 50),),
        ),
        Figure(f"{who}, the same, p99", "ms", (_quantile(late, 99),)),
        Figure(f"{who}, the same: `/health` meanwhile (lag of the loop), p50", "ms", (_quantile(lag, 50),)),
        Figure(f"{who}, the same: `/health` meanwhile (lag of the loop), p99", "ms", (_quantile(lag, 99),)),
        Figure(f"{who}, the same: CPU of the server for each event", "µs", (1e6 * cpu / (CLIENTS * CHUNKS),)),
    ]


async def cancelling() -> list[Figure]:
    """From `cancel_generation` to its answer, and to the first chunk of the next client that waits for the GPU."""
    answered, freed = list[float](), list[float]()
    dummy = {"chunks": ["token "] * 20_000, "stream_chunk_delay": 0.01, "requires_gpu": True}
    with _server(dummy, {"gpu_strategy": "semaphore", "gpu_limit": 1}) as server:
        async with _joined(server) as holds, _joined(server) as waits:
            for _ in range(CANCELS):
                await holds.send(_event("generate_text", {"prompt": "go"}))
                await _until(holds, "text_chunk")
                await waits.send(_event("generate_text", {"prompt": "go"}))
                await asyncio.sleep(0.02)  # it stands in the queue by now
                sent = time.perf_counter()
                await holds.send(_event("cancel_generation", {}))
                answered.append(1000 * (await _until(holds, "generation_canceled") - sent))
                freed.append(1000 * (await _until(waits, "text_chunk") - sent))
                await waits.send(_event("cancel_generation", {}))
                await _until(waits, "generation_canceled")
    return [
        Figure("socket.io: cancelling until it is answered", "ms", tuple(answered)),
        Figure("socket.io: cancelling until the next one streams", "ms", tuple(freed)),
    ]


@contextmanager
def _server(dummy: dict[str, Any], resources: dict[str, Any] | None = None) -> Iterator[ServerProcess]:
    with tempfile.TemporaryDirectory(prefix="lollms-bench-") as folder:
        config = {
            "defaults": {"ttt_binding": "dummy"},
            "resource_manager": {"max_running": CLIENTS, "max_waiting": CLIENTS, **(resources or {})},
            "logging": {"log_level": "WARNING"},
        }
        instances = {"dummy": {"type": "dummy_binding", **dummy}}
        with ServerProcess(config, instances, root=Path(folder)) as server:
            yield server


@asynccontextmanager
async def _joined(server: ServerProcess) -> AsyncIterator[ClientConnection]:
    url = server.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
    async with connect(url, compression=None, ping_interval=None) as socket:
        await socket.recv()
        await socket.send("40")
        await socket.recv()
        yield socket


@asynccontextmanager
async def _many(server: ServerProcess) -> AsyncIterator[list[ClientConnection]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_joined(server)) for _ in range(CLIENTS)]


def _event(name: str, payload: Any) -> str:
    return "42" + json.dumps([name, payload])


async def _generate(socket: ClientConnection) -> list[float]:
    """When each event of one answer came."""
    await socket.send(_event("generate_text", {"prompt": "go"}))
    arrivals = []
    while True:
        packet = await socket.recv()
        if packet == "2":
            await socket.send("3")
            continue
        arrivals.append(time.perf_counter())
        if str(packet).startswith('42["text_generated"'):
            return arrivals


async def _until(socket: ClientConnection, name: str) -> float:
    """When the next event of this name came."""
    while not str(await socket.recv()).startswith(f'42["{name}"'):
        pass
    return time.perf_counter()


async def _watch(server: ServerProcess, lag: list[float]) -> None:
    async with httpx.AsyncClient() as client:
        while True:
            started = time.perf_counter()
            await client.get(f"{server.url}/health")
            lag.append(1000 * (time.perf_counter() - started))
            await asyncio.sleep(0.02)


def _quantile(samples: list[float], percent: int) -> float:
    return statistics.quantiles(samples, n=100)[percent - 1]


def _resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    for figure in socketio_figures():
        print(f"{figure.name}: {figure.median:.4g} {figure.unit}", flush=True)
