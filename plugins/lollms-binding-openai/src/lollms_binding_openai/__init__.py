"""OpenAI and every service that speaks its API, as a plugin of the lollms server.

Importing this package does not import `openai`: that happens when an instance is opened.
"""

from __future__ import annotations

from lollms_kernel.contracts import Register
from lollms_kernel.hookspecs import hookimpl

from .binding import OpenAIBinding
from .dalle import DalleBinding

__all__ = ["DalleBinding", "OpenAIBinding", "register_bindings"]


@hookimpl
def register_bindings(register: Register) -> None:
    """Register the binding types `openai_binding` and `dalle_binding`."""
    register(OpenAIBinding)
    register(DalleBinding)
