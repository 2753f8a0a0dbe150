"""GGUF models through llama.cpp, as a plugin of the lollms server.

Importing this package imports no engine: `llama_cpp` is loaded in the worker process, with the first model.
"""

from __future__ import annotations

from lollms_kernel.contracts import Register
from lollms_kernel.hookspecs import hookimpl

from .binding import LlamaCppBinding
from .extra_buffers import amx_trap

__all__ = ["LlamaCppBinding", "amx_trap", "register_bindings"]


@hookimpl
def register_bindings(register: Register) -> None:
    """Register the binding type `llamacpp_binding`."""
    register(LlamaCppBinding)
