"""The slot engine side by side with whatever peer is there, in one run on one machine.

`python -m benchmarks.llama_engine` takes a few minutes with a model of a tenth of the size; `--full` measures the real
shape in Q8_0 and Q4_0. llama-cpp-python's own server is always measured (what it needs is installed into a folder
of its own), llama-server when LLAMA_SERVER_BIN names one. The engine is measured in a worker process, as the server
runs it, without the HTTP layer that the peers have on top. Other work on the machine disturbs all times alike; tokens
for each second of processor time are told too, which it disturbs less.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from gguf.constants import GGMLQuantizationType as Quantization

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_kernel.config.schema import WorkersConfig
from lollms_kernel.contracts import BindingContext
from lollms_kernel.testing.server_process import free_port
from lollms_kernel.types import Finished, GenerateRequest, Message, TextDelta
from lollms_kernel.workers.proxy import WorkerBinding

from .llama_models import FULL, SMALL, Shape, write_model

PEER_PACKAGES = ("fastapi", "uvicorn", "sse-starlette", "starlette-context", "pydantic-settings")
_personality_number = itertools.count()
PROMPT, ANSWER = 64, 32
N_CTX = 32_768  # 32 prompts of 650 tokens fit even where nothing is shared


class Answer(msgspec.Struct, frozen=True):
    """Seconds to the first piece and to the last."""

    first: float
    total: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine did with one load."""

    engine: str
    load: str
    users: int
    tokens: int
    seconds: float
    cpu_seconds: float
    first_median: float
    memory_mib: float

    @property
    def speed(self) -> float:
        """Tokens a second, all users together."""
        return self.tokens / self.seconds

    @property
    def per_cpu_second(self) -> float:
        """Tokens for each second of processor time."""
        return self.tokens / self.cpu_seconds if self.cpu_seconds else 0.0


Ask = Callable[[str, str | None, int], Awaitable[Answer]]
"""Prompt, system text, number of the user."""


class Peer(msgspec.Struct, frozen=True):
    """An engine that runs: its name, its process, and how to ask it."""

    name: str
    pid: int
    ask: Ask


def new_personality() -> str:
    """600 tokens that no engine has seen before: otherwise a second round would find them in its cache."""
    return (f"{next(_personality_number):04d} " + "You are a helpful pirate who knows the seven seas. " * 12)[
        :600
    ]


async def measure(peer: Peer, load: str, users: int) -> Run:
    """All users ask at the same time; each answer has the same number of tokens."""
    shared = load == "personality"
    if shared:
        personality = new_personality()
        asked = [peer.ask(f"user {number}: hello", personality, number) for number in range(users)]
    else:
        asked = [peer.ask(chr(97 + number) * PROMPT, None, number) for number in range(users)]
    cpu, began = _cpu(peer.pid), time.perf_counter()
    answers = await asyncio.gather(*asked)
    seconds = time.perf_counter() - began
    return Run(
        engine=peer.name,
        load=load,
        users=users,
        tokens=users * ANSWER,
        seconds=seconds,
        cpu_seconds=_cpu(peer.pid) - cpu,
        first_median=statistics.median(answer.first for answer in answers),
        memory_mib=_memory(peer.pid),
    )


@asynccontextmanager
async def ours(model: Path, slots: int) -> AsyncIterator[Peer]:
    """The slot engine in a worker."""
    root = model.parent
    settings = LlamaCppBinding.Settings(
        type="llamacpp_binding",
        binding_instance_name="bench",
        model_path=str(model),
        default_model=model.name,
        n_ctx=N_CTX,
        parallel=slots,
        threads=_threads(),
    )
    front = LlamaCppBinding(settings, BindingContext(models_folder=root, root=root))
    binding = WorkerBinding(front, WorkersConfig(), lambda event: None)
    await binding.open()
    await binding.load(model.name)

    async def ask(prompt: str, system: str | None, number: int) -> Answer:
        request = GenerateRequest(
            id=str(number),
            model=model.name,
            messages=(Message("user", prompt),) if system else (),
            raw_prompt=None if system else prompt,
            system=system,
            public_prefix=len(system or ""),
            tenant=f"user {number}",
            parameters={"max_tokens": ANSWER, "temperature": 0, "ignore_eos": True},
            want_tokens=True,
        )
        began = time.perf_counter()
        first = None
        async with aclosing(binding.generate(request)) as chunks:
            async for chunk in chunks:
                if first is None and isinstance(chunk, TextDelta):
                    first = time.perf_counter() - began
                if isinstance(chunk, Finished) and (
                    chunk.usage is None or chunk.usage.completion_tokens != ANSWER
                ):
                    raise RuntimeError(f"an answer has not {ANSWER} tokens: {chunk}")
        return Answer(first or 0.0, time.perf_counter() - began)

    assert binding.pid is not None
    try:
        yield Peer("lollms", binding.pid, ask)
    finally:
        await binding.close()


@asynccontextmanager
async def http_peer(name: str, command: Sequence[str], port: int, env: dict[str, str]) -> AsyncIterator[Peer]:
    """A server that speaks OpenAI's completions."""
    process = subprocess.Popen(  # noqa: ASYNC220 - starting one takes no time worth waiting for
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}/v1"
    try:
        async with httpx.AsyncClient(timeout=1200, limits=httpx.Limits(max_connections=None)) as client:
            await _wait_for(client, f"{address}/models", process)

            async def ask(prompt: str, system: str | None, number: int) -> Answer:
                text = prompt
                if system:
                    turn = "<|im_start|>{}\n{}<|im_end|>\n"
                    text = (
                        turn.format("system", system)
                        + turn.format("user", prompt)
                        + "<|im_start|>assistant\n"
                    )
                body = {
                    "prompt": text,
                    "max_tokens": ANSWER,
                    "temperature": 0,
                    "stream": True,
                    "logit_bias": {"258": -100, "256": -100},
                }
                began, first = time.perf_counter(), None
                async with client.stream("POST", f"{address}/completions", json=body) as response:
                    response.raise_for_status()
                    async for line in response.aiter_lines():
                        if first is None and line.startswith("data: "):
                            first = time.perf_counter() - began
                return Answer(first or 0.0, time.perf_counter() - began)

            yield Peer(name, process.pid, ask)
    finally:
        process.terminate()
        process.wait(20)


async def _wait_for(client: httpx.AsyncClient, url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            if (await client.get(url)).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")


def python_server(model: Path) -> tuple[str, list[str], int, dict[str, str]]:
    """llama-cpp-python's own server, which does one request at a time."""
    folder = (
        Path(tempfile.gettempdir()) / f"lollms-bench-peer-{sys.version_info.major}{sys.version_info.minor}"
    )
    if not (folder / "fastapi").is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *PEER_PACKAGES]
        subprocess.run(install, check=True)
    port = free_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--port", str(port)]
    command += ["--n_ctx", str(N_CTX), "--n_threads", str(_threads()), "--n_threads_batch", str(_threads())]
    command += ["--interrupt_requests", "false"]
    return "llama-cpp-python server", command, port, {**os.environ, "PYTHONPATH": str(folder)}


def llama_server(model: Path, slots: int) -> tuple[str, list[str], int, dict[str, str]] | None:
    """llama.cpp's server, if LLAMA_SERVER_BIN names it."""
    binary = os.environ.get("LLAMA_SERVER_BIN")
    if not binary:
        return None
    port = free_port()
    command = [binary, "-m", str(model), "--port", str(port), "-c", str(N_CTX), "-np", str(slots)]
    command += ["-t", str(_threads()), "-tb", str(_threads()), "--kv-unified", "--no-webui"]
    return "llama-server", command, port, dict(os.environ)


class Clock:
    """Adds up the processor time of this thread that calls take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def timed(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*arguments)
            finally:
                self.seconds += time.thread_time() - began

        return timed


async def step_overhead(model: Path) -> list[tuple[int, float, float, float]]:
    """For 1, 8 and 16 slots, in microseconds of processor time: a step beside llama_decode, of it choosing tokens; and
    llama_decode itself in the engine's thread."""
    from lollms_binding_llamacpp.engine import Engine, EngineSpec
    from lollms_binding_llamacpp.job import Job
    from lollms_binding_llamacpp.parameters import Sampling
    from lollms_binding_llamacpp.scheduler import Scheduler

    rows = []
    for slots in (1, 8, 16):
        spec = EngineSpec(name="bench", path=model, n_ctx=4096, parallel=slots, threads=_threads())
        engine = await Engine.load(spec)
        sampling = Sampling(max_tokens=60, ignore_eos=True, seed=1)
        streams = [engine.start(Job(tokens=[97 + n], sampling=sampling)) for n in range(slots)]

        def timed(scheduler: Scheduler) -> tuple[float, float, float, float]:
            scheduler.step()  # prompts are read
            decode, sample = Clock(), Clock()
            scheduler.context.decode = decode.on(scheduler.context.decode)  # type: ignore[method-assign]
            for slot in scheduler.slots:
                if slot.work is not None:
                    slot.work.sampler.sample = sample.on(slot.work.sampler.sample)  # type: ignore[method-assign]
            steps, began = scheduler.counters.n_decode_total, time.thread_time()
            for _ in range(40):
                scheduler.step()
            spent = time.thread_time() - began
            return spent, decode.seconds, sample.seconds, scheduler.counters.n_decode_total - steps

        spent, decode, sample, steps = await engine.between_steps(timed)
        rows.append((slots, 1e6 * (spent - decode) / steps, 1e6 * sample / steps, 1e6 * decode / steps))
        for stream in streams:
            await stream.stop()
        await engine.close()
    return rows


async def compare(
    model: Path, plain: Sequence[int], shared: Sequence[int], rounds: int, python: bool = True
) -> list[Run]:
    """Every engine under every load; of several rounds the best of each, since noise only ever adds time."""
    runs = []
    slots = max(*plain, *shared)
    peers: list[Any] = [lambda: ours(model, slots)]
    if python:
        peers.append(lambda: http_peer(*python_server(model)))
    found = llama_server(model, slots)
    if found is not None:
        peers.append(lambda: http_peer(*found))
    loads = [("plain", users) for users in plain] + [("personality", users) for users in shared]
    for opened in peers:
        async with opened() as peer:
            await measure(peer, "plain", 1)  # warm
            for load, users in loads:
                alone = "python" in peer.name
                best = [await measure(peer, load, users) for _ in range(1 if alone else rounds)]
                runs.append(min(best, key=lambda run: run.seconds))
                _tell(runs[-1])
    return runs


def _tell(run: Run) -> None:
    cells = (
        run.engine,
        f"{run.load}, {run.users}",
        f"{run.speed:.1f}",
        f"{run.per_cpu_second:.1f}",
        f"{1000 * run.first_median:.0f}",
        f"{run.seconds:.2f}",
        f"{run.memory_mib:.0f}",
    )
    print(f"| {' | '.join(cells)} |", flush=True)


def _ratios(runs: Sequence[Run]) -> None:
    by_load: dict[tuple[str, int], dict[str, Run]] = {}
    for run in runs:
        by_load.setdefault((run.load, run.users), {})[run.engine] = run
    print("\n| load | peer | time, peer : ours | processor time | first token |\n|---|---|---|---|---|")
    for (load, users), engines in by_load.items():
        own = engines.pop("lollms")
        for name, run in engines.items():
            print(
                f"| {load}, {users} | {name} | {run.seconds / own.seconds:.2f} | "
                f"{run.cpu_seconds / max(own.cpu_seconds, 0.01):.2f} | {run.first_median / own.first_median:.2f} |"
            )


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def _threads() -> int:
    """All cores, or one where others are at work: threads that wait for each other wait for those too."""
    cores = len(os.sched_getaffinity(0))
    return int(os.environ.get("LLAMA_THREADS", 1 if os.getloadavg()[1] > cores / 2 else cores))


async def _main(full: bool, as_json: bool, python: bool) -> None:
    shape: Shape = FULL if full else SMALL
    kinds = (Quantization.Q8_0, Quantization.Q4_0) if full else (Quantization.Q8_0,)
    plain, shared = ((1, 4, 8, 16), (8, 32)) if full else ((1, 8), (8, 32))
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, load {load:.1f} at the start, {_threads()} thread(s), {shape.name}, vocabulary 151936"
    )
    everything: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="lollms-bench-") as folder:
        for kind in kinds:
            model = write_model(Path(folder) / f"{kind.name}.gguf", shape, kind)
            print(
                f"\n**{kind.name}**, {model.stat().st_size >> 20} MiB, {PROMPT}+{ANSWER} tokens, personality 600\n"
            )
            print(
                "| engine | load, users | tokens/s | tokens per CPU second | first token, ms | total, s | MiB |"
            )
            print("|---|---|---|---|---|---|---|")
            runs = await compare(model, plain, shared, rounds=2, python=python)
            _ratios(runs)
            print("\n| slots | step beside llama_decode, µs | of it choosing tokens | llama_decode |")
            print("|---|---|---|---|")
            overhead = await step_overhead(model)
            for slots, beside, choosing, decode in overhead:
                print(f"| {slots} | {beside:.0f} | {choosing:.0f} | {decode:.0f} |", flush=True)
            everything[kind.name] = {"runs": msgspec.to_builtins(runs), "steps": overhead}
            model.unlink()
    if as_json:
        print(json.dumps(everything))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.llama_engine", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the shape of a 0.5B model, in Q8_0 and Q4_0")
    parser.add_argument("--json", action="store_true", help="print everything as JSON too")
    parser.add_argument(
        "--no-python-server",
        action="store_true",
        help="leave llama-cpp-python's own server out: it takes longest",
    )
    options = parser.parse_args()
    asyncio.run(_main(options.full, options.json, not options.no_python_server))


if __name__ == "__main__":
    main()
