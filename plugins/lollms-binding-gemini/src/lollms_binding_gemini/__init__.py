"""Google's Gemini, Gemma and Imagen models, as a plugin of the lollms server.

Importing this package does not import Google's libraries: that happens when an instance is opened.
"""

from __future__ import annotations

from lollms_kernel.contracts import Register
from lollms_kernel.hookspecs import hookimpl

from .binding import GeminiBinding
from .images import GeminiImageBinding

__all__ = ["GeminiBinding", "GeminiImageBinding", "register_bindings"]


@hookimpl
def register_bindings(register: Register) -> None:
    """Register the binding types `gemini_binding` and `gemini_image_binding`."""
    register(GeminiBinding)
    register(GeminiImageBinding)
