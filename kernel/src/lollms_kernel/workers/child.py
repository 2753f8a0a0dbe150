"""The program of a worker process: `python -m lollms_kernel.workers.child --fd N --target module:Class`.

It serves one binding over the inherited socket `N` until the other end closes it. What the binding needs comes
through that socket, secrets included; nothing is read from the command line or the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from operator import attrgetter
from typing import Any, NoReturn

import msgspec

from .. import logs
from ..contracts import Binding
from ..errors import BindingUnavailable, ConfigError, LollmsError, NotSupported
from ..types import Chunk
from .allowance import Allowance
from .channel import Channel
from .faults import Fault
from .frames import (
    PROTOCOL,
    Call,
    Cancel,
    Credit,
    Frame,
    FrameError,
    Ping,
    Pong,
    Raised,
    Ready,
    Result,
    from_plain,
    pack,
)
from .methods import METHODS, Opening
from .parent import die_with_parent

logger = logging.getLogger(__name__)

CLOSE_GRACE = 5
"""Seconds for giving everything back after the server has gone."""


class Host:
    """Serves one binding to the other end of a connection; each call is a task that this object owns."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._binding: Binding | None = None
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, asyncio.Task[Any]] = {}
        self._allowances: dict[int, Allowance] = {}
        self._closing = False
        self._gone = asyncio.Event()
        self._channel = Channel(self._receive, self._lost)

    async def serve(self, connection: socket.socket) -> None:
        """Answer until the connection ends, then stop everything and close the binding."""
        await self._loop.create_unix_connection(lambda: self._channel, sock=connection)
        self._channel.send(Ready(PROTOCOL))
        await self._gone.wait()
        # SIGALRM ends the process even where the binding blocks, or its native code holds the GIL for ever.
        signal.alarm(CLOSE_GRACE)
        await self._close()

    def _receive(self, frame: Frame) -> None:
        match frame:
            case Call(id=id):
                self._allowances[id] = Allowance()
                task = self._calls[id] = self._loop.create_task(self._run(frame), name=f"{frame.method} {id}")
                task.add_done_callback(lambda done: self._answer(frame, done))
            case Cancel(id=id) if id in self._calls:
                self._calls[id].cancel()
            case Credit(id=id, count=count) if id in self._allowances:
                self._allowances[id].grant(count)
            case Ping():
                self._channel.send(Pong(None if self._binding is None else self._binding.pulse))
            case _:
                pass  # for a call that has ended meanwhile

    def _lost(self, reason: Exception | None) -> None:
        if reason is not None:
            logger.warning("the connection to the server broke: %s", reason)
        self._gone.set()

    async def _run(self, call: Call) -> Any:
        method = METHODS.get(call.method)
        if method is None:
            raise NotSupported(f"A worker has no method '{call.method}'.")
        arguments = method.arguments(call.arguments)
        if call.method == "open":
            return await self._open(*arguments)
        if call.method == "close":
            return await self._close()
        if self._binding is None:
            raise BindingUnavailable("The binding is not open.")
        if method.streams:
            return await self._pump(call.id, getattr(self._binding, call.method)(*arguments))
        return await getattr(self._binding, call.method)(*arguments)

    async def _pump(self, id: int, generator: AsyncGenerator[Chunk, None]) -> None:
        allowance = self._allowances[id]
        async with aclosing(generator) as chunks:
            async for chunk in chunks:
                self._channel.send_chunk(id, chunk)
                if not allowance.spend():
                    await allowance.granted()

    def _answer(self, call: Call, task: asyncio.Task[Any]) -> None:
        """Tell how a call ended; this also is the word that nothing of it runs any more."""
        del self._calls[call.id], self._allowances[call.id]
        if task.cancelled():
            if not self._closing:  # else the end of this process answers: the server knows why
                fault = Fault.of(BindingUnavailable(f"'{call.method}' was stopped before it had ended."))
                self._channel.send(Raised(call.id, fault))
        elif (error := task.exception()) is not None:
            if not isinstance(error, LollmsError):
                logger.error("'%s' failed", call.method, exc_info=error)
            self._channel.send(Raised(call.id, Fault.of(error)))
        else:
            try:
                self._channel.send(Result(call.id, pack(task.result())))
            except FrameError as unsendable:
                logger.error("'%s' gave a value that cannot be sent: %s", call.method, unsendable)
                self._channel.send(Raised(call.id, Fault.of(unsendable)))
        if call.method == "close":
            self._channel.close()

    async def _open(self, opening: Opening) -> None:
        sys.path += [entry for entry in opening.search_path if entry not in sys.path]
        kind = import_binding(self._target)
        settings = msgspec.convert(opening.settings, kind.Settings, dec_hook=from_plain)
        binding = kind(settings, opening.context)
        await binding.open()
        self._binding = binding

    async def _close(self) -> None:
        """Stop every other call, then close the binding."""
        self._closing = True
        running = [task for task in self._calls.values() if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        binding, self._binding = self._binding, None
        if binding is not None:
            await binding.close()


def import_binding(target: str) -> type[Binding]:
    """The class that `module:Class` names. Raises ConfigError."""
    module, _, name = target.partition(":")
    kind = attrgetter(name)(importlib.import_module(module))
    if not (isinstance(kind, type) and issubclass(kind, Binding)):
        raise ConfigError(f"'{target}' is not a Binding.")
    return kind


def _prepare_process(name: str, level: int, style: str) -> None:
    os.dup2(2, 1)  # engines print; the server's stdout belongs to the server
    sys.stdout = sys.stderr
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches every process of a terminal; the server decides
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # the server asks so for the stacks of a worker that hangs
    die_with_parent()
    logs.configure(level, style)
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: _name_worker(record, name))


def _name_worker(record: logging.LogRecord, name: str) -> bool:
    record.facts = {**getattr(record, "facts", {}), "worker": name}
    return True


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lollms_kernel.workers.child", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the server")
    parser.add_argument("--target", required=True, help="module:Class of the binding")
    parser.add_argument("--name", default="worker", help="the instance's name, for the log")
    parser.add_argument("--log-level", type=int, default=logging.INFO)
    parser.add_argument("--log-style", default="text", choices=["text", "json"])
    return parser.parse_args(arguments)


async def _serve(target: str, connection: socket.socket) -> None:
    await Host(target).serve(connection)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the worker until the server has no more use for it."""
    options = _options(arguments)
    _prepare_process(options.name, options.log_level, options.log_style)
    connection = socket.socket(fileno=options.fd)
    connection.set_inheritable(False)  # a helper that the engine starts must not hold the line open
    code = 1
    try:
        asyncio.new_event_loop().run_until_complete(_serve(options.target, connection))
        code = 0
    except Exception:  # the last place that can say why this process ends
        logger.exception("the worker failed")
    finally:
        # An orderly exit would wait for the engine's threads, which may never end.
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
