"""Models of an Ollama server, as a plugin of the lollms server.

Importing this package does not import the `ollama` library: that happens when an instance is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lollms_kernel.contracts import Register
from lollms_kernel.hookspecs import hookimpl

from .binding import OllamaBinding

if TYPE_CHECKING:
    import click

__all__ = ["OllamaBinding", "register_bindings", "register_commands"]


@hookimpl
def register_bindings(register: Register) -> None:
    """Register the binding type `ollama_binding`."""
    register(OllamaBinding)


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `lollms ollama pull|list|ps`."""
    from .commands import ollama

    cli.add_command(ollama)
