"""A sandboxed process: calls and streams in both directions, what it may not do, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from lollms_kernel.errors import GenerationFailed, InvalidRequest, LollmsError, NotSupported, Unavailable
from lollms_kernel.sandbox import LOST, Limits, SandboxProcess

TARGET = """
import asyncio, os, subprocess, sys, threading, time

def serve(peer):
    async def double(value):
        return value * 2

    async def count(to):
        for number in range(to):
            yield number

    async def ask_back(method, *arguments):
        return await peer.call(method, *arguments)

    async def relay(to):
        async for item in peer.stream("numbers", to):
            yield item

    async def sleep(mark):
        try:
            await asyncio.sleep(600)
        finally:
            open(mark, "w").close()

    async def block():
        time.sleep(600)

    async def fail(kind):
        raise {"value": ValueError, "key": KeyError}[kind]("no luck")

    async def unsendable():
        return object()

    async def code(text):
        found = {"peer": peer}
        try:
            exec(text, found)
        except BaseException as error:
            return type(error).__name__
        return found.get("result")

    async def in_thread():
        return await asyncio.to_thread(threading.active_count)

    return {f.__name__: f for f in (double, count, ask_back, relay, sleep, block, fail, unsendable, code, in_thread)}

def broken(peer):
    raise RuntimeError("no luck")
"""
STRICT = Limits(memory=512 << 20, cpu_seconds=30, file_size=1 << 20, open_files=64, processes=False)


@pytest.fixture(autouse=True)
def module_of_targets(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("target")
    (folder / "sandbox_target.py").write_text(TARGET)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
async def process() -> AsyncIterator[SandboxProcess]:
    made = SandboxProcess("test", "sandbox_target:serve", STRICT)
    await made.start()
    yield made
    await made.kill()


async def test_calls_and_streams_go_in_both_directions(process: SandboxProcess) -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    async def numbers(to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number

    process.peer.serve({"add": add, "numbers": numbers})

    assert await process.peer.call("double", "ab") == "abab"
    assert [item async for item in process.peer.stream("count", 200)] == list(range(200))
    assert await process.peer.call("ask_back", "add", 1, 2) == 3
    assert [item async for item in process.peer.stream("relay", 100)] == list(range(100))
    assert await asyncio.gather(*(process.peer.call("double", n) for n in range(50))) == list(
        range(0, 100, 2)
    )


async def test_a_stream_is_never_far_ahead_of_its_reader(process: SandboxProcess) -> None:
    made = 0

    async def numbers(to: int) -> AsyncGenerator[int, None]:
        nonlocal made
        for number in range(to):
            made += 1
            yield number

    process.peer.serve({"numbers": numbers})
    async with aclosing(process.peer.stream("relay", 100_000)) as items:
        assert await anext(items) == 0
        await asyncio.sleep(0.3)  # as long as the reader does not read, nothing more may be made
        assert made <= 200


@pytest.mark.parametrize(
    ("method", "arguments", "kind", "said"),
    [
        ("fail", ("value",), InvalidRequest, "Bad request: no luck"),
        ("fail", ("key",), GenerationFailed, "KeyError: 'no luck'"),
        ("unsendable", (), GenerationFailed, "cannot be sent"),
        ("nothing", (), NotSupported, "no 'nothing'"),
        ("double", (), InvalidRequest, "called wrongly"),
        ("double", (object(),), InvalidRequest, "cannot be given this"),
        ("ask_back", ("nothing",), LollmsError, "no 'nothing'"),
    ],
)
async def test_what_goes_wrong_is_an_error_that_says_so_and_the_process_lives(
    process: SandboxProcess, method: str, arguments: tuple[Any, ...], kind: type[LollmsError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        await process.peer.call(method, *arguments)

    assert await process.peer.call("double", 1) == 2


async def test_cancelling_a_call_stops_it_over_there(process: SandboxProcess, tmp_path: Path) -> None:
    mark = tmp_path / "stopped"
    task = asyncio.create_task(process.peer.call("sleep", str(mark)))
    assert await process.peer.call("double", 1) == 2  # so the call before it has begun
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with asyncio.timeout(30):
        while not mark.exists():  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.01)


async def test_killing_it_ends_what_waits_for_it_and_what_it_had_asked_for(process: SandboxProcess) -> None:
    stopped = asyncio.Event()
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            stopped.set()

    process.peer.serve({"wait": wait})
    waiting = [asyncio.create_task(process.peer.call("ask_back", "wait"))]
    async with asyncio.timeout(30):
        await begun.wait()
    waiting.append(asyncio.create_task(process.peer.call("block")))
    await asyncio.sleep(0)
    pid = process.pid
    await process.kill()

    assert stopped.is_set()
    for task in waiting:
        with pytest.raises(GenerationFailed, match=LOST):
            await task
    assert pid is not None and not os.path.exists(f"/proc/{pid}")  # noqa: ASYNC240
    with pytest.raises(GenerationFailed):
        await process.peer.call("double", 1)


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("import os; os.fork()", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import os; os.execv('/bin/true', ['true'])", "PermissionError"),
        ("import os; os.kill(os.getppid(), 0)", "PermissionError"),
        ("import os; os.kill(os.getpid(), 0); result = 'itself'", "itself"),
        ("len(bytearray(1 << 30))", "MemoryError"),
        ("open('big', 'wb').write(b'x' * (2 << 20))", "OSError"),
        ("files = [open('/dev/null') for _ in range(100)]", "OSError"),
    ],
)
async def test_the_limits_hold(process: SandboxProcess, code: str, result: str) -> None:
    assert str(await process.peer.call("code", code)) == result
    assert await process.peer.call("in_thread") >= 1  # threads work


async def test_processor_time_is_limited() -> None:
    process = SandboxProcess("busy", "sandbox_target:serve", Limits(cpu_seconds=1))
    await process.start()
    try:
        with pytest.raises(GenerationFailed, match=LOST):
            async with asyncio.timeout(60):
                await process.peer.call("code", "while True: pass")
        assert await process.wait() in ("was ended by SIGXCPU", "was ended by SIGKILL")
    finally:
        await process.kill()


async def test_bytes_in_all_are_limited() -> None:
    process = SandboxProcess("flood", "sandbox_target:serve", Limits(), max_total=100_000)
    await process.start()
    try:
        with pytest.raises(GenerationFailed, match="more than 100,000 bytes in all"):
            async for _ in process.peer.stream("count", 1_000_000):
                pass
    finally:
        await process.kill()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("sandbox_target:broken", "RuntimeError: no luck"),
        ("sandbox_target:nothing", "has no attribute 'nothing'"),
        ("no_such_module:x", "No module named 'no_such_module'"),
    ],
)
async def test_one_that_does_not_start_says_why_and_leaves_nothing(target: str, said: str) -> None:
    process = SandboxProcess("broken", target, Limits())

    with pytest.raises(Unavailable, match=said):
        await process.start()
    assert process.pid is None


async def test_its_folder_is_its_own_and_gone_with_it_and_it_gets_few_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOLLMS_ENCRYPTION_KEY", "hidden")
    monkeypatch.setenv("SOME_TOKEN", "hidden")
    look = "import os; result = [os.getcwd(), dict(os.environ)]"
    found = {}
    for inherit in (False, True):
        process = SandboxProcess("look", "sandbox_target:serve", Limits(), inherit=inherit)
        await process.start()
        found[inherit] = await process.peer.call("code", look)
        await process.kill()

    folder, variables = found[False]
    assert "hidden" not in variables.values()
    assert not os.path.exists(folder)  # noqa: ASYNC240
    folder, variables = found[True]
    assert (folder, variables["SOME_TOKEN"]) == (os.getcwd(), "hidden")
    assert "LOLLMS_ENCRYPTION_KEY" not in variables


async def test_it_dies_with_its_server(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from lollms_kernel.sandbox import Limits, SandboxProcess
async def main():
    process = SandboxProcess("orphan", "sandbox_target:serve", Limits())
    await process.start()
    print(process.pid, flush=True)
    sys.stdin.read()
asyncio.run(main())
"""
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert server.stdout is not None
    pid = int(await server.stdout.readline())
    server.kill()
    await server.communicate()

    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}"):  # noqa: ASYNC240 - it is nobody's child any more
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
