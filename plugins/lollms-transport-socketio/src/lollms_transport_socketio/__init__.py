"""The LoLLMs Socket.IO protocol for the LoLLMs server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lollms_kernel.hookspecs import hookimpl

if TYPE_CHECKING:
    from lollms_kernel.contracts import Register


@hookimpl
def register_transports(register: Register) -> None:
    """The LoLLMs Socket.IO protocol on the main port, below /socket.io/."""
    from .transport import SocketioTransport

    register(SocketioTransport)
