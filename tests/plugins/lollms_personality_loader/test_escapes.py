"""What scripts may not do to the server: run for ever, start processes, use up memory, flood it, outlive a request."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lollms_kernel.config.load import load_config
from lollms_kernel.kernel import LocalKernel
from lollms_kernel.plugins import load_plugins
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Message, Output, TextDelta

SLOW = {"type": "dummy_binding", "chunks": ["a"] * 5000, "stream_chunk_delay": 0.01, "requires_gpu": True}
ECHO = {"type": "dummy_binding"}
LIMITS = {"timeout": 3, "memory_mb": 512, "max_output_mb": 2, "max_running": 2}

Kernel = Any


@pytest.fixture
async def kernel(tmp_path: Path) -> AsyncIterator[Kernel]:
    """A kernel with tight limits; `personality` writes what it shall find."""
    folder = tmp_path / "lollms_configs"
    (folder / "bindings").mkdir(parents=True)
    (folder / "bindings/slow.yaml").write_text(yaml.safe_dump(SLOW))
    config = {
        "bindings_map": {"echo": "dummy_binding", "slow": "dummy_binding"},
        "defaults": {"ttt_binding": "echo"},
        "scripts": LIMITS,
        "personalities_config": {"one": {"allow_scripts": True}, "two": {"allow_scripts": True}},
    }
    (folder / "main_config.yaml").write_text(yaml.safe_dump(config))
    yield lambda: LocalKernel(load_config(folder), load_plugins())


def write(root: Path, body: str, name: str = "one") -> None:
    scripts = root / "personal/personalities" / name / "scripts"
    scripts.mkdir(parents=True)
    (scripts / "workflow.py").write_text(body)
    (scripts.parent / "config.yaml").write_text(f"name: {name}\nscript_path: scripts/workflow.py\n")


def ask(name: str = "one", **more: Any) -> GenerateRequest:
    return GenerateRequest(id=f"r-{name}", messages=(Message("user", "hi"),), personality=name, **more)


async def chunks_of(kernel: Any, request: GenerateRequest) -> list[Chunk]:
    async with asyncio.timeout(60), kernel.stream(request) as chunks:
        return [chunk async for chunk in chunks]


def error_of(chunks: list[Chunk]) -> str:
    assert isinstance(chunks[-1], Finished)
    (output,) = [chunk for chunk in chunks if isinstance(chunk, Output) and chunk.type == "error"]
    return str(output.data)


def running_scripts(name: str = "") -> list[int]:
    """Processes of scripts that were started by this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*"):
        try:
            command = (stat / "cmdline").read_bytes().split(b"\0")
            parent = int((stat / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and b"lollms_kernel.sandbox.child" in command:
            found.append(int(stat.name))
    return found


async def run(kernel: Kernel, root: Path, body: str) -> tuple[list[Chunk], list[Chunk]]:
    """The chunks of a script, and those of a good one after it: the server lives."""
    write(root, body)
    write(root, "async def run_workflow(prompt, params, context):\n    return 'well'\n", "two")
    async with kernel() as opened:
        return await chunks_of(opened, ask()), await chunks_of(opened, ask("two"))


HEAD = "async def run_workflow(prompt, params, context):\n"
LOOP = "async def run_workflow(prompt, params, context):\n    while True: pass\n"
LOOP_AT_IMPORT = "while True: pass\n"
WAIT = "import asyncio\nasync def run_workflow(prompt, params, context):\n    await asyncio.sleep(600)\n"
FORK = """
import os
def run_workflow(prompt, params, context):
    done = []
    for _ in range(200):
        try:
            if os.fork() == 0:
                while True: os.fork()
            done.append('forked')
        except OSError as error:
            done.append(type(error).__name__)
    return str(sorted(set(done)))
"""
SPAWN = """
import subprocess, os, multiprocessing
def run_workflow(prompt, params, context):
    done = []
    for start in (lambda: subprocess.run(['true']), lambda: os.system('true') and 1 / 0,
                  lambda: os.execv('/bin/true', ['true']), lambda: os.posix_spawn('/bin/true', ['true'], {}),
                  lambda: os.kill(os.getppid(), 0)):
        try:
            start()
            done.append('started')
        except Exception as error:
            done.append(type(error).__name__)
    return ' '.join(done)
"""
MEMORY = "async def run_workflow(prompt, params, context):\n    return len(bytearray(2 << 30))\n"
HUGE = "async def run_workflow(prompt, params, context):\n    return 'x' * (8 << 20)\n"
FLOOD = """
async def run_workflow(prompt, params, context):
    while True:
        yield 'x' * 100_000
"""
PRINTS = """
async def run_workflow(prompt, params, context):
    for _ in range(3000):
        print('x' * 1000)
    return 'printed'
"""
GARBAGE = """
import os
async def run_workflow(prompt, params, context):
    for number in range(3, 1000):
        try:
            os.write(number, b'\\xff' * 1000)
        except OSError:
            pass
    return 'never'
"""
DIES = "import os, signal\nasync def run_workflow(prompt, params, context):\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
DEEP = """
async def run_workflow(prompt, params, context):
    value = []
    for _ in range(100_000):
        value = [value]
    return {'deep': value}
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (LOOP, "took longer than 3 s"),
        (LOOP_AT_IMPORT, "took longer than 3 s"),
        (WAIT, "took longer than 3 s"),
        (MEMORY, "MemoryError"),
        (HUGE, "more than 2,097,152 bytes"),
        (FLOOD, "more than 2,097,152 bytes"),
        (GARBAGE, "cannot be read"),
        (DIES, "was ended by SIGSEGV"),
    ],
    ids=["loop", "loop at import", "wait", "memory", "huge", "flood", "garbage", "dies"],
)
async def test_a_script_without_measure_is_an_error_and_the_next_one_works(
    kernel: Kernel, tmp_path: Path, body: str, said: str
) -> None:
    bad, good = await run(kernel, tmp_path, body)

    assert said in error_of(bad)
    assert good[:1] == [TextDelta("well")]
    assert running_scripts() == []


async def test_a_fork_bomb_starts_nothing(kernel: Kernel, tmp_path: Path) -> None:
    bad, good = await run(kernel, tmp_path, FORK)

    assert bad[:1] == [TextDelta("['PermissionError']")]
    assert good[:1] == [TextDelta("well")]


async def test_a_script_starts_no_program_and_signals_nobody(kernel: Kernel, tmp_path: Path) -> None:
    bad, _ = await run(kernel, tmp_path, SPAWN)

    (text,) = [chunk.text for chunk in bad if isinstance(chunk, TextDelta)]
    assert "started" not in text
    assert text.split()[0] == "PermissionError"


async def test_what_a_script_prints_never_blocks_it_and_a_bounded_part_is_logged(
    kernel: Kernel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    chunks, _ = await run(kernel, tmp_path, PRINTS)

    assert chunks[:1] == [TextDelta("printed")]
    logged = sum(len(record.getMessage()) for record in caplog.records)
    assert 10_000 < logged < 200_000
    assert "the rest is dropped" in caplog.text


async def test_a_value_of_any_depth_is_cut_and_harms_nobody(kernel: Kernel, tmp_path: Path) -> None:
    chunks, good = await run(kernel, tmp_path, DEEP)

    (output,) = [chunk for chunk in chunks if isinstance(chunk, Output)]
    assert output.type in ("json", "error")
    assert good[:1] == [TextDelta("well")]


async def test_secrets_of_the_server_are_not_in_the_process(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    body = HEAD + "    import os\n    return str(dict(os.environ)) + os.getcwd()\n"

    chunks, _ = await run(kernel, tmp_path, body)

    (text,) = [chunk.text for chunk in chunks if isinstance(chunk, TextDelta)]
    assert "hidden" not in text
    assert "lollms-sandbox-" in text
    assert not await asyncio.to_thread(os.path.exists, text.rpartition("}")[2])


async def test_cancelling_reaches_the_generation_that_a_script_waits_for_and_ends_its_process(
    kernel: Kernel, tmp_path: Path
) -> None:
    write(
        tmp_path,
        HEAD + "    return context['binding'].generate_stream(prompt, params)\n",
    )
    async with kernel() as opened:
        async with asyncio.timeout(60):
            async with opened.stream(ask(binding="slow")) as chunks:
                assert await anext(chunks) == TextDelta("a")
                assert opened.gpu.status()["active"] == 1
                left = time.perf_counter()
            assert time.perf_counter() - left < 5
            assert opened.gpu.status()["active"] == 0
            assert opened.admission.running == 0
    assert running_scripts() == []


async def test_a_script_that_a_client_left_does_not_keep_others_waiting(
    kernel: Kernel, tmp_path: Path
) -> None:
    write(tmp_path, WAIT)
    write(tmp_path, "async def run_workflow(prompt, params, context):\n    return 'well'\n", "two")
    async with kernel() as opened, asyncio.timeout(60):
        waiting = [asyncio.create_task(chunks_of(opened, ask(binding=None))) for _ in range(2)]
        while len(running_scripts()) < 2:  # noqa: ASYNC110 - a process announces itself to nobody here
            await asyncio.sleep(0.02)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

        assert (await chunks_of(opened, ask("two")))[:1] == [TextDelta("well")]


@pytest.mark.parametrize(
    "path",
    [
        "../../../outside.py",
        "{outside}",
        "scripts/link.py",
        "scripts/../../../../outside.py",
        "scripts/missing.py",
        "scripts",
        "a\\0b",
        "config.yaml",
    ],
)
async def test_a_script_path_outside_of_the_folder_is_a_problem_and_never_runs(
    kernel: Kernel, tmp_path: Path, path: str
) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\n")
    folder = tmp_path / "personal/personalities/one"
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts/link.py").symlink_to(outside)
    wanted = path.format(outside=outside)
    (folder / "config.yaml").write_text(f'name: one\nscript_path: "{wanted}"\n')
    async with kernel() as opened:
        card = opened.personalities["one"].card
        await chunks_of(opened, ask())

    assert not card.is_scripted
    assert any("`script_path`" in problem for problem in card.problems)
    assert not (tmp_path / "it ran").exists()


async def test_a_script_that_becomes_a_link_outwards_after_loading_never_runs(
    kernel: Kernel, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\n")
    write(tmp_path, "async def run_workflow(prompt, params, context):\n    return 'well'\n")
    opened = kernel()
    script = tmp_path / "personal/personalities/one/scripts/workflow.py"
    script.unlink()
    script.symlink_to(outside)
    async with opened:
        chunks = await chunks_of(opened, ask())

    assert "no file inside" in error_of(chunks)
    assert not (tmp_path / "it ran").exists()
