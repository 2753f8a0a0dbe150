"""Functions for models and scripts: each `async def` of the Python files of the configured folders, and our own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lollms_kernel.hookspecs import hookimpl

from .loader import load_functions
from .own import own_functions

if TYPE_CHECKING:
    from lollms_kernel.config.schema import MainConfig
    from lollms_kernel.contracts import Register


@hookimpl
def register_functions(register: Register, config: MainConfig) -> None:
    """Register every function; the user's take the place of examples, and those of ours, of the same name."""
    for own in own_functions():
        register(own)
    overrides = config.functions_config or {}
    for folder in (config.paths.example_functions_folder, config.paths.functions_folder):
        if folder is not None:
            for function in load_functions(Path(folder), config.functions, overrides):
                register(function)
