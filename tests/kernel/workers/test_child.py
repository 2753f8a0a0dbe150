"""The worker program by itself, spoken to over its socket, and the death of its server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lollms_kernel.contracts import BindingContext
from lollms_kernel.types import ModelInfo
from lollms_kernel.workers.frames import (
    PROTOCOL,
    Call,
    Frame,
    FrameDecoder,
    Ping,
    Pong,
    Raised,
    Ready,
    Result,
    encode,
    pack,
)
from lollms_kernel.workers.methods import METHODS, Opening
from worker_steps import ended, exists

HERE = Path(__file__).parent


class Line:
    """The server's end of the socket, read and written step by step."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    def send(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(map(encode, frames)))

    def next(self) -> Frame:
        while not self._frames:
            data = self.socket.recv(65536)
            assert data, "the worker closed the connection"
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)


@contextmanager
def child(target: str = "worker_bindings:ScriptedBinding") -> Iterator[tuple[Line, subprocess.Popen[bytes]]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    command = [
        sys.executable,
        "-m",
        "lollms_kernel.workers.child",
        f"--fd={theirs.fileno()}",
        f"--target={target}",
    ]
    with ours, theirs, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        try:
            yield Line(ours), process
        finally:
            process.kill()


def opening() -> Opening:
    return Opening(
        settings={"type": "scripted_binding", "binding_instance_name": "w"},
        context=BindingContext(models_folder=Path("models"), root=Path()),
        search_path=(str(HERE),),
    )


def test_it_says_that_it_is_ready_opens_the_binding_and_answers() -> None:
    with child() as (line, process):
        assert line.next() == Ready(PROTOCOL)
        line.send(Call(1, "open", pack((opening(),))), Ping())
        assert {type(line.next()), type(line.next())} == {Result, Pong}
        line.send(Call(2, "list_models", pack(())))
        answer = line.next()
        assert isinstance(answer, Result)
        (model,) = METHODS["list_models"].value(answer.value)
        assert isinstance(model, ModelInfo)
        assert model.details["pid"] == process.pid


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (Call(7, "list_models", pack(())), "binding_unavailable", "not open"),
        (Call(7, "dance", pack(())), "not_supported", "no method 'dance'"),
        (Call(7, "generate", pack(("no request",))), "generation_failed", "Expected `object`"),
        (Call(7, "open", pack((opening(),))), "generation_failed", "no_such_module"),
    ],
)
def test_a_call_that_cannot_be_done_is_answered_with_its_reason(call: Call, code: str, message: str) -> None:
    with child("no_such_module:Binding") as (line, _):
        line.next()
        line.send(call)
        answer = line.next()

    assert isinstance(answer, Raised)
    assert (answer.id, answer.fault.code) == (7, code)
    assert message in answer.fault.message


def test_a_class_that_is_no_binding_is_refused() -> None:
    with child("worker_bindings:Unimportable") as (line, _):
        line.next()
        line.send(Call(1, "open", pack((opening(),))))
        answer = line.next()

    assert isinstance(answer, Raised)
    assert answer.fault.code == "config_error"


def test_it_ends_when_its_server_closes_the_connection() -> None:
    with child() as (line, process):
        line.next()
        line.send(Call(1, "open", pack((opening(),))))
        line.next()
        line.socket.close()

        assert process.wait(60) == 0


def test_it_ends_after_close() -> None:
    with child() as (line, process):
        line.next()
        line.send(Call(1, "open", pack((opening(),))))
        line.next()
        line.send(Call(2, "close", pack(())))

        assert isinstance(line.next(), Result)
        assert process.wait(60) == 0


@pytest.mark.parametrize("garbage", [b"\xff" * 8, b"\x00\x00\x00\x01\xc1"])
def test_garbage_from_the_server_ends_it(garbage: bytes) -> None:
    with child() as (line, process):
        line.next()
        line.socket.sendall(garbage)

        assert process.wait(60) == 0


@pytest.mark.parametrize("prompt", ["wait", "hang"])
async def test_a_killed_server_takes_its_worker_along(prompt: str) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "server_program.py"),
        prompt,
        "asyncio",
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    pid = int(await server.stdout.readline())
    assert exists(pid)

    os.kill(server.pid, signal.SIGKILL)
    await server.wait()

    await ended(pid)


async def test_it_serves_a_server_on_uvloop_as_well() -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "server_program.py"),
        "count",
        "uvloop",
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await server.communicate()

    assert server.returncode == 0
    pid, rest = out.split()
    assert rest == b"200"
    await ended(int(pid))
