"""Runs strangers' Python in a process of its own: limited, killed with all it started, and spoken to over a socket.

    process = SandboxProcess("the script of x", "my_plugin.child:serve", Limits(memory=512 << 20))
    await process.start()
    process.peer.serve({"generate": generate})        # what the child may call
    async with aclosing(process.peer.stream("run", prompt)) as items: ...
    await process.kill()

The child calls `serve(peer)` of its target once, which says what the server may call. What goes over the socket are
plain values: None, truth values, numbers, text, bytes, lists and mappings.
"""

from __future__ import annotations

from .limits import Limits
from .peer import LOST, Peer
from .process import SandboxProcess

__all__ = ["LOST", "Limits", "Peer", "SandboxProcess"]
