"""What the tests of workers do again and again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from lollms_kernel.config.schema import WorkersConfig
from lollms_kernel.contracts import Binding
from lollms_kernel.types import Chunk, GenerateRequest, Media, Message
from lollms_kernel.workers.proxy import WorkerBinding

PATIENT = WorkersConfig(heartbeat_interval=0.5, heartbeat_timeout=60.0, restart_delay=0.01)
"""Limits that a busy machine does not reach."""

StartWorker = Callable[..., WorkerBinding]
"""`worker(kind, limits, **settings)`: what the fixture of this name gives."""


def ask(prompt: str, *media: Media, **parameters: Any) -> GenerateRequest:
    """A request that makes the scripted binding do what its method of this name does."""
    turn = Message("user", prompt, media)
    return GenerateRequest(id="r", messages=(turn,), binding="w", model="m", parameters=parameters)


async def answer(binding: Binding, request: GenerateRequest) -> list[Chunk]:
    """The whole stream."""
    async with aclosing(binding.generate(request)) as chunks:
        return [chunk async for chunk in chunks]


async def facts(binding: Binding) -> dict[str, Any]:
    """What the scripted binding says of itself."""
    return (await binding.get_model_info()).details


async def until_running(binding: Binding, count: int = 1) -> None:
    """Return when so many generators run in the worker."""
    async with asyncio.timeout(60):
        while (await facts(binding))["running"] < count:  # noqa: ASYNC110 - happens in another process
            await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds; for what no event tells."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def exists(pid: int | None) -> bool:
    """Whether there is such a process, be it as a zombie."""
    return os.path.exists(f"/proc/{pid}")


async def ended(pid: int) -> None:
    """Return when the process has ended, whoever its parent is."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(handle, over.set)
    try:
        async with asyncio.timeout(60):
            await over.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
