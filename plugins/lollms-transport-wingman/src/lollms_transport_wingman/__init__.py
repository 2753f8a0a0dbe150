"""The llama-server, OpenAI and Wingman APIs for the LoLLMs server.

Importing this package imports nothing that is slow: every call of `lollms` does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lollms_kernel.hookspecs import hookimpl

if TYPE_CHECKING:
    import click

    from lollms_kernel.contracts import Register

__all__ = ["register_commands", "register_transports"]


@hookimpl
def register_transports(register: Register) -> None:
    """Register the transport `wingman`."""
    from .transport import WingmanTransport

    register(WingmanTransport)


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `lollms llama-server`."""
    from .llama_server.command import llama_server

    cli.add_command(llama_server)
