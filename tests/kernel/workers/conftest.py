"""Workers with real processes, ended after each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from lollms_kernel.config.schema import WorkersConfig
from lollms_kernel.contracts import BindingContext
from lollms_kernel.types import Event
from lollms_kernel.workers.proxy import WorkerBinding
from worker_bindings import ScriptedBinding, ScriptedSettings
from worker_steps import PATIENT, StartWorker


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
