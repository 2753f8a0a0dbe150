"""The llama-server, OpenAI and Wingman APIs for the LoLLMs server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lollms_kernel.contracts import Register
from lollms_kernel.hookspecs import hookimpl

from .transport import WingmanTransport

if TYPE_CHECKING:
    import click

__all__ = ["WingmanTransport", "register_commands", "register_transports"]


@hookimpl
def register_transports(register: Register) -> None:
    """Register the transport `wingman`."""
    register(WingmanTransport)


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `lollms llama-server`."""
