"""Personalities: loading hundreds and thousands, and what one adds to a request, plain and scripted."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lollms_kernel.testing import ServerProcess

from .client import Address, connection, prompt, receive_answer, send
from .figures import GENERATE, Figure

SIZES = (500, 5000)
CONFIG = """\
name: Person {number}
author: somebody
version: 1.{number}
category: things
language: english
personality_description: Does the things that number {number} does, and says so in a sentence of usual length.
personality_conditioning: |
  !@>instructions:
  You are number {number}.
{lines}
welcome_message: Hello, I am number {number}. What can I do for you?
user_message_prefix: 'User'
ai_message_prefix: 'Person'
link_text: '\\n'
anti_prompts: ['!@>', '<|end|>', '<|user|>', '<|system|>']
dependencies: []
recommended_binding: null
model_temperature: 0.6
model_top_k: 50
model_top_p: 0.9
model_repeat_penalty: 1.0
model_repeat_last_n: 40
disclaimer: ''
"""
LINES = "\n".join(
    f"  Say what line {line} of these instructions wants to be said by you." for line in range(30)
)
SCRIPT = """
async def run_workflow(prompt, params, context):
    return await context["binding"].generate(prompt, params)
"""


class Loaded(msgspec.Struct):
    """One load in a process of its own."""

    seconds: float
    processor: float
    mebibytes: float
    look: float
    count: int


def personality_figures() -> Iterator[Figure]:
    """All of them."""
    for size in SIZES:
        yield from loading(size)
    yield conditioning()
    yield from request_overhead()


def loading(size: int, rounds: int = 3) -> Iterator[Figure]:
    """Time, memory and a look that finds nothing new; first without and then with what the last load has kept."""
    with tempfile.TemporaryDirectory(prefix="lollms-bench-") as folder:
        root, cache = Path(folder, "zoo"), Path(folder, "cache")
        _write_zoo(root, size)
        cold = []
        for _ in range(rounds):
            for file in cache.rglob("*.msgpack"):
                file.unlink()
            cold.append(_load(root, cache))
        warm = [_load(root, cache) for _ in range(rounds)]
    if {loaded.count for loaded in [*cold, *warm]} != {size}:
        raise RuntimeError("not all personalities were loaded")
    what = f"{size} personalities"
    yield Figure(f"load {what}, every file read", "ms", tuple(1000 * loaded.seconds for loaded in cold))
    yield Figure(f"load {what}, as at the last start", "ms", tuple(1000 * one.seconds for one in warm))
    for when, runs in (("every file read", cold), ("as at the last start", warm)):
        name = f"load {what}, {when}: processor time"
        yield Figure(name, "ms", tuple(1000 * loaded.processor for loaded in runs))
    yield Figure(f"memory of {what}", "MiB", tuple(loaded.mebibytes for loaded in warm))
    yield Figure(f"look for changes in {what}", "ms", tuple(1000 * loaded.look for loaded in warm))


def _write_zoo(root: Path, size: int) -> None:
    for number in range(size):
        folder = root / f"category {number % 71}" / f"person_{number}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(CONFIG.format(number=number, lines=LINES), "utf-8")


def _load(root: Path, cache: Path) -> Loaded:
    command = [sys.executable, "-m", __name__, str(root)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True)
    return msgspec.json.decode(done.stdout, type=Loaded)


def _measure(root: Path) -> Loaded:
    from lollms_kernel.config.schema import MainConfig
    from lollms_personality_loader.library import Library, Root

    before = _resident()
    library = Library(MainConfig(), [Root(root)])
    started, worked = time.perf_counter(), time.process_time()
    library.look()
    seconds, processor = time.perf_counter() - started, time.process_time() - worked
    memory = _resident() - before
    return Loaded(seconds, processor, memory, library.look(), len(library.personalities()))


def _resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def conditioning(rounds: int = 5, requests: int = 2000) -> Figure:
    """Finding a personality by its name among 500, and putting its conditioning before a request."""
    from lollms_kernel.config.schema import MainConfig
    from lollms_kernel.personalities import Personalities
    from lollms_kernel.types import GenerateRequest, Message
    from lollms_personality_loader.library import Library, Root

    with tempfile.TemporaryDirectory(prefix="lollms-bench-") as folder:
        _write_zoo(Path(folder), 500)
        library = Library(MainConfig(), [Root(Path(folder))])
        library.look()
    found = Personalities({})
    found.add(library)
    request = GenerateRequest(id="1", messages=(Message("user", "hello"),), parameters={"seed": 1})
    samples = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(requests):
            found.find("Person 250").condition(request)
        samples.append(1e6 * (time.process_time() - started) / requests)
    return Figure("find a plain personality and condition a request (processor time)", "µs", tuple(samples))


def request_overhead(rounds: int = 300, scripted_rounds: int = 60) -> Iterator[Figure]:
    """A dummy answer without, with a plain and with a scripted personality, by turns over one kept connection."""
    with tempfile.TemporaryDirectory(prefix="lollms-bench-") as folder:
        home = Path(folder, "personal/personalities")
        for name in ("plain", "scripted"):
            (home / name / "scripts").mkdir(parents=True)
            text = CONFIG.format(number=1, lines=LINES)
            (home / name / "config.yaml").write_text(
                text + ("script_path: scripts/w.py\n" if name == "scripted" else "")
            )
        (home / "scripted/scripts/w.py").write_text(SCRIPT)
        config = {
            "defaults": {"ttt_binding": "dummy"},
            "personalities_config": {"scripted": {"allow_scripts": True}},
        }
        dummy = {"type": "dummy_binding", "binding_instance_name": "dummy", "reply": "hello"}
        with (
            ServerProcess(config, {"dummy": dummy}, root=Path(folder)) as server,
            connection(Address("127.0.0.1", server.port)) as opened,
        ):

            def ask(personality: str | None) -> float:
                body = prompt("hello", personality=personality)
                started = time.perf_counter()
                send(opened, GENERATE, body)
                receive_answer(opened)
                return time.perf_counter() - started

            none, plain = [], []
            for _ in range(rounds):
                none.append(ask(None))
                plain.append(ask("plain"))
            first = ask("scripted")
            scripted = []
            for _ in range(scripted_rounds):
                scripted.append(ask("scripted"))
                time.sleep(0.15)  # until the next process is ready, as between the requests of people
    warm = slice(rounds // 10, None)
    added = tuple(1e6 * (mine - bare) for mine, bare in zip(plain[warm], none[warm], strict=True))
    yield Figure("added by a plain personality to a request", "µs", added)
    yield Figure("request of a scripted personality, the first", "ms", (1000 * first,))
    yield Figure(
        "request of a scripted personality, its process ready",
        "ms",
        tuple(1000 * one for one in scripted[5:]),
    )


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(_measure(Path(sys.argv[1]))).decode())
