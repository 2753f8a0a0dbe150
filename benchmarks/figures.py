"""One function for each figure; each starts what it needs and gives samples, never a judgement."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.server_process import free_port

from . import baseline
from .client import FINAL, Address, connection, prompt, receive_answer, receive_until, send

GENERATE = "/api/v1/generate"


class Figure(msgspec.Struct, frozen=True):
    """Samples of one quantity, in `unit`."""

    name: str
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)


def every_figure() -> Iterator[Figure]:
    """All of them, in the order of the report."""
    yield start_time()
    yield idle_memory()
    yield from latency()
    yield from cpu_per_chunk()
    yield cancel_latency("inline")
    yield cancel_latency("process")
    yield from embedded_model()

    from .downloads import download_figures
    from .images import image_figures  # these make their figures of the class here
    from .openai_api import openai_figures
    from .personalities import personality_figures
    from .remote import remote_figures
    from .socketio import socketio_figures
    from .turn_detection import turn_detection_figures
    from .voice_chat import voice_chat_figures

    yield from openai_figures()
    yield from remote_figures()
    yield from download_figures()
    yield from image_figures()
    yield from personality_figures()
    yield from socketio_figures()
    yield from turn_detection_figures()
    yield from voice_chat_figures()


def start_time(rounds: int = 7) -> Figure:
    """From starting the process to the first 200 on /health, without configuration; the first round is left out."""
    samples = []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory(prefix="lollms-bench-") as folder:
            port = free_port()
            command = [sys.executable, "-m", "lollms_kernel", "serve", "--port", str(port)]
            started = time.perf_counter()
            process = subprocess.Popen(
                [*command, "--config-dir", f"{folder}/lollms_configs"],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                _wait_for_health(Address("127.0.0.1", port), process)
                samples.append(1000 * (time.perf_counter() - started))
            finally:
                process.terminate()
                process.wait(30)
    return Figure("start: `lollms serve` to the first 200 on /health", "ms", tuple(samples[1:]))


def _wait_for_health(address: Address, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        try:
            with connection(address) as opened:
                opened.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                receive_answer(opened)
                return
        except OSError:
            time.sleep(0.002)
    raise RuntimeError("the server was not healthy after 60 s")


def idle_memory() -> Figure:
    """Resident memory of the server process after its start; workers are processes of their own."""
    with _server(dummy={}) as server:
        status = Path(f"/proc/{server.pid}/status").read_text("ascii")
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return Figure("memory of the idle server process, without workers", "MiB", (kib / 1024,))


def latency(rounds: int = 400) -> list[Figure]:
    """A dummy answer that is not streamed, by turns with one of the bare server, over kept connections."""
    body = prompt("hello", personality=None)
    bare: list[float] = []
    ours: list[float] = []
    with (
        baseline.running() as (bare_address, _),
        _server(dummy={"reply": "hello"}) as server,
        connection(bare_address) as to_bare,
        connection(_address(server)) as to_server,
    ):
        for _ in range(rounds):
            for samples, opened, path in ((bare, to_bare, "/answer"), (ours, to_server, GENERATE)):
                started = time.perf_counter()
                send(opened, path, body)
                receive_answer(opened)
                samples.append(1e6 * (time.perf_counter() - started))
    warm = slice(rounds // 10, None)
    added = tuple(mine - theirs for mine, theirs in zip(ours[warm], bare[warm], strict=True))
    return [
        Figure("answer of a bare uvicorn application", "µs", tuple(bare[warm])),
        Figure("answer of the dummy binding, not streamed", "µs", tuple(ours[warm])),
        Figure("added latency", "µs", added),
    ]


def cpu_per_chunk(rounds: int = 5, chunks: int = 4000) -> list[Figure]:
    """Processor time of the server process for each streamed chunk, inline and out of a worker."""
    dummy = {"chunks": ["token "] * chunks}
    with baseline.running() as (address, pid):
        bare = _stream_cpu(address, pid, "/stream", {"x-chunks": str(chunks)}, rounds, chunks)
    with _server(dummy=dummy) as server:
        inline = _stream_cpu(_address(server), server.pid, GENERATE, {}, rounds, chunks)
    with _server(dummy={**dummy, "isolation": "process"}) as server:
        worker = _stream_cpu(_address(server), server.pid, GENERATE, {}, rounds, chunks)
    reference = statistics.median(bare)
    return [
        Figure("CPU per streamed chunk, bare uvicorn application", "µs", bare),
        Figure("CPU per streamed chunk, dummy inline", "µs", inline),
        Figure("CPU per streamed chunk, dummy in a worker (server's part)", "µs", worker),
        Figure("the same as ratio, inline : bare", "×", tuple(sample / reference for sample in inline)),
        Figure("the same as ratio, worker : bare", "×", tuple(sample / reference for sample in worker)),
    ]


def _stream_cpu(
    address: Address, pid: int, path: str, headers: dict[str, str], rounds: int, chunks: int
) -> tuple[float, ...]:
    samples = []
    for _ in range(rounds + 1):
        before = cpu_seconds(pid)
        with connection(address) as opened:
            send(opened, path, prompt("go", stream=True), headers)
            received = receive_until(opened, FINAL)
        streamed = received.count(b'"type":"chunk"')
        if streamed != chunks:
            raise RuntimeError(f"{path} streamed {streamed} of {chunks} chunks")
        samples.append(1e6 * (cpu_seconds(pid) - before) / chunks)
    return tuple(samples[1:])


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads so far; in nanoseconds where the kernel counts them, else in ticks."""
    try:
        tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
        return sum(int(task.read_text("ascii").split()[0]) for task in tasks) / 1e9
    except FileNotFoundError:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cancel_latency(isolation: str, rounds: int = 20) -> Figure:
    """One client holds the only GPU lease and goes away: until the one that waits has its first chunk."""
    dummy = {
        "chunks": ["token "] * 20_000,
        "stream_chunk_delay": 0.01,
        "requires_gpu": True,
        "isolation": isolation,
    }
    samples = []
    with _server({"resource_manager": {"gpu_strategy": "semaphore", "gpu_limit": 1}}, dummy) as server:
        for _ in range(rounds + 1):
            with connection(_address(server)) as holds, connection(_address(server)) as waits:
                send(holds, GENERATE, prompt("go", stream=True))
                receive_until(holds, b"token")
                send(waits, GENERATE, prompt("go", stream=True))
                time.sleep(0.05)  # it stands in the queue by now
                left = time.perf_counter()
                holds.close()
                receive_until(waits, b"token")
                samples.append(1000 * (time.perf_counter() - left))
            time.sleep(0.05)
    where = "in a worker" if isolation == "process" else "inline"
    return Figure(f"client goes away until the next one streams, dummy {where}", "ms", tuple(samples[1:]))


def embedded_model(rounds: int = 10) -> list[Figure]:
    """The built-in model over REST: time to the first token and tokens a second after it."""
    first, speed = [], []
    with ServerProcess() as server:
        for _ in range(rounds + 1):
            with connection(_address(server)) as opened:
                started = time.perf_counter()
                send(opened, GENERATE, prompt("How do I add an API key?", stream=True))
                head = receive_until(opened, b'"type":"chunk"')
                begun = time.perf_counter()
                rest = b"" if FINAL in head else receive_until(opened, FINAL)
                ended = time.perf_counter()
            first.append(1000 * (begun - started))
            tokens = re.search(rb'"completion_tokens":(\d+)', head + rest)
            if tokens is None:
                raise RuntimeError("the answer does not say how many tokens it has")
            speed.append((int(tokens[1]) - 1) / (ended - begun))
    return [
        Figure("embedded model, first token, model loaded", "ms", tuple(first[1:])),
        Figure("embedded model, speed after the first token", "tokens/s", tuple(speed[1:])),
    ]


def _server(config: dict[str, Any] | None = None, dummy: dict[str, Any] | None = None) -> ServerProcess:
    settings = {"type": "dummy_binding", "binding_instance_name": "dummy", **(dummy or {})}
    return ServerProcess({"defaults": {"ttt_binding": "dummy"}, **(config or {})}, {"dummy": settings})


def _address(server: ServerProcess) -> Address:
    return Address("127.0.0.1", server.port)
