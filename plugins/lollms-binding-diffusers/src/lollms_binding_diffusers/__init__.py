"""Images with diffusers for the lollms server, with a small built-in demonstration model.

Importing this package imports no engine: torch and diffusers are loaded in the worker process, with the first model.
"""

from __future__ import annotations

from lollms_kernel.contracts import Register
from lollms_kernel.hookspecs import hookimpl

from .binding import DiffusersBinding

__all__ = ["DiffusersBinding", "register_bindings"]


@hookimpl
def register_bindings(register: Register) -> None:
    """Register the binding type `diffusers_binding`."""
    register(DiffusersBinding)
