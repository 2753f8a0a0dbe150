"""A diffusers binding for workers of tests: loading takes its time, and so does each step of a slow prompt."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from lollms_binding_diffusers import DiffusersBinding

SLOW = 1.0
"""Seconds that a load takes longer than usual, and a step of the prompt `slow`."""


class SlowDiffusers(DiffusersBinding):
    """Writes the file `loading` into its root when it begins to load."""

    type_name: ClassVar[str] = "slow_diffusers"

    async def open(self) -> None:
        from lollms_binding_diffusers import drawing, loading

        await super().open()
        load_model, after_step = loading.load_model, drawing.Watch.after_step

        def load_slowly(*arguments: Any) -> Any:
            (self.context.root / "loading").touch()
            time.sleep(SLOW)
            return load_model(*arguments)

        def step(watch: Any, *arguments: Any) -> Any:
            if any(item.job.order.wanted.prompt == "slow" for item in watch._group):
                time.sleep(SLOW)
            return after_step(watch, *arguments)

        loading.load_model = load_slowly  # type: ignore[assignment]
        drawing.Watch.after_step = step  # type: ignore[assignment, method-assign]
