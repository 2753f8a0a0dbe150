"""Workers with real processes, ended after each test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from worker_bindings import ScriptedBinding, ScriptedSettings

from lollms_kernel.config.schema import WorkersConfig
from lollms_kernel.contracts import BindingContext
from lollms_kernel.types import Event
from lollms_kernel.workers.proxy import WorkerBinding

PATIENT = WorkersConfig(heartbeat_interval=0.5, heartbeat_timeout=60.0, restart_delay=0.01)
"""Limits that a busy machine does not reach."""

StartWorker = Callable[..., WorkerBinding]


@pytest.fixture
def events() -> list[Event]:
    """What the workers of a test reported."""
    return []


@pytest.fixture
async def worker(tmp_path: Path, events: list[Event]) -> AsyncIterator[StartWorker]:
    """Makes worker bindings: `worker(kind, limits, **settings)`."""
    async with AsyncExitStack() as stack:

        def make(
            kind: type[ScriptedBinding] = ScriptedBinding, limits: WorkersConfig = PATIENT, **settings: Any
        ) -> WorkerBinding:
            context = BindingContext(models_folder=tmp_path / "models", root=tmp_path)
            own = ScriptedSettings(type=kind.type_name, binding_instance_name="w", **settings)
            binding = WorkerBinding(kind(own, context), limits, events.append)
            stack.push_async_callback(binding.close)
            return binding

        yield make


async def ended(pid: int) -> None:
    """Return when the process has ended, whoever its parent is."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.add_reader(handle, lambda: over.done() or over.set_result(None))
    try:
        async with asyncio.timeout(60):
            await over
    finally:
        loop.remove_reader(handle)
        os.close(handle)
