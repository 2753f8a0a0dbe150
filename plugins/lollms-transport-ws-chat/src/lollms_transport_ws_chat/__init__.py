"""Voice chat over WebSocket with turn detection for the LoLLMs server."""

from __future__ import annotations

from lollms_kernel.contracts import Register
from lollms_kernel.hookspecs import hookimpl

from .transport import WsChatTransport

__all__ = ["WsChatTransport", "register_transports"]


@hookimpl
def register_transports(register: Register) -> None:
    """See `hookspecs.register_transports`."""
    register(WsChatTransport)
