"""The program of a sandboxed process: `python -m lollms_kernel.sandbox.child --fd N --target module:function …`.

It limits itself, calls the target with a `Peer`, and serves until the server closes the connection.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from ..workers.parent import die_with_parent
from .limits import Limits, put_in_force
from .peer import Handler, Peer


async def _serve(options: argparse.Namespace, connection: socket.socket, missing: list[str]) -> None:
    module, _, name = options.target.partition(":")
    peer = Peer()
    handlers: Mapping[str, Handler] = getattr(importlib.import_module(module), name)(peer)

    async def hello() -> list[str]:
        return missing

    peer.serve({"hello": hello, **handlers})
    await asyncio.get_running_loop().create_unix_connection(lambda: peer.channel, sock=connection)
    await peer.lost


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lollms_kernel.sandbox.child", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the server")
    parser.add_argument("--target", required=True, help="module:function that gives the handlers")
    parser.add_argument("--name", default="sandbox", help="for people who look at the processes")
    parser.add_argument("--limits", default="{}", help="JSON of the limits")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run until the server has no more use for it."""
    options = _options(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides
    die_with_parent()
    connection = socket.socket(fileno=options.fd)
    connection.set_inheritable(False)
    code = 1
    try:
        limits: Any = msgspec.json.decode(options.limits, type=Limits)
        missing = put_in_force(limits)
        asyncio.new_event_loop().run_until_complete(_serve(options, connection, missing))
        code = 0
    except BaseException:  # the last place that can say why this process ends
        traceback.print_exc()
    finally:
        # An orderly exit would wait for threads that may never end.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
