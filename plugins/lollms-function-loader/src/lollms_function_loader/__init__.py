"""Functions from the configured folders: each `async def` of each Python file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lollms_kernel.hookspecs import hookimpl

from .loader import load_functions

if TYPE_CHECKING:
    from lollms_kernel.config.schema import MainConfig
    from lollms_kernel.contracts import Register


@hookimpl
def register_functions(register: Register, config: MainConfig) -> None:
    """Register every function; one of the user's takes the place of an example of the same name."""
    for folder in (config.paths.example_functions_folder, config.paths.functions_folder):
        if folder is not None:
            for function in load_functions(Path(folder)):
                register(function)
