"""The hooks of the kernel. `docs/hooks.md` explains each one and is tested against this file.

All are plain functions with positional arguments: a keyword-only argument would break every implementation,
and an `async def` would always win a firstresult hook.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pluggy

from .contracts import InstanceStatus, Kernel, Register
from .types import Event, GenerateRequest

if TYPE_CHECKING:
    from .config.schema import MainConfig

GROUP = "lollms"
"""Entry-point group and pluggy project name."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_bindings(register: Register) -> None:
    """Call `register(cls)` for each `Binding` class."""


@hookspec
def register_personalities(register: Register, config: MainConfig) -> None:
    """Call `register(personality)` for each `Personality`."""


@hookspec
def register_functions(register: Register, config: MainConfig) -> None:
    """Call `register(function)` for each `Function`."""


@hookspec
def register_gpu_strategies(register: Register) -> None:
    """Call `register(cls)` for each `GpuStrategy` class."""


@hookspec
def register_transports(register: Register) -> None:
    """Call `register(cls)` for each `Transport` class."""


@hookspec
def register_commands(cli: Any) -> None:
    """Add commands to `cli`, a `click.Group`."""


@hookspec(firstresult=True)
def select_binding(request: GenerateRequest, bindings: Mapping[str, InstanceStatus]) -> str | None:
    """Name the instance for a request that names none, or return None to leave it to the next plugin."""


@hookspec
def lifespan(kernel: Kernel) -> AbstractAsyncContextManager[None] | None:
    """Return a context manager that is entered when the kernel is open and left before it closes."""


@hookspec
def observe(event: Event) -> None:
    """Something happened. Called on the event loop: be quick, never block, never raise."""
