"""`lollms serve`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from . import options


@click.command()
@options.config_dir
@click.option(
    "--host",
    envvar="LOLLMS_HOST",
    show_envvar=True,
    metavar="HOST",
    help="Listen on this address instead of server.host. Addresses that others reach need an API key.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    envvar="LOLLMS_PORT",
    show_envvar=True,
    metavar="PORT",
    help="Listen on this port instead of server.port.",
)
@click.option(
    "--main-port-only",
    is_flag=True,
    envvar="LOLLMS_MAIN_PORT_ONLY",
    show_envvar=True,
    help="Open no ports of single protocols: everything answers on the main port alone.",
)
def serve(config_dir: Path, host: str | None, port: int | None, main_port_only: bool) -> None:
    """Start the server.

    Ctrl-C stops it: answers under way get a moment to end, a second Ctrl-C ends them at once.
    """
    from ..server import run

    sys.exit(run(config_dir, host, port, announce=click.echo, extra_ports=not main_port_only))
