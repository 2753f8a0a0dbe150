"""`lollms ps` and `lollms stop`: what is in memory and on its way here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from ..errors import NotFound, Unavailable
from . import options
from .hub import configured
from .tables import format_json, show


@click.command()
@options.server
@options.as_json
def ps(url: str | None, api_key: str | None, config_dir: Path, as_json: bool) -> None:
    """List the models in memory and the downloads under way."""
    from .running import RunningServer

    server = RunningServer.find(config_dir, url, api_key)
    models = [] if server is None else server.call("GET", "running")["models"]
    downloads = asyncio.run(_under_way(config_dir))
    if as_json:
        click.echo(format_json({"models": models, "downloads": downloads}))
        return
    if server is None:
        click.echo("No server runs with this configuration.", err=True)
    show(
        [{"kind": "model", **row} for row in models],
        ("kind", "model", "instance", "size", "context_size", "pid"),
        as_json=False,
        empty="No model is in memory.",
    )
    show(
        [{"kind": "download", **row} for row in downloads],
        ("kind", "name", "status", "progress", "total", "error"),
        as_json=False,
        empty="No download is under way.",
    )


@click.command()
@click.argument("name", metavar="MODEL|INSTANCE|DOWNLOAD")
@options.server
@options.as_json
def stop(name: str, url: str | None, api_key: str | None, config_dir: Path, as_json: bool) -> None:
    """Unload a model from the memory of the running server, or pause a download.

    The next request loads the model again; `lollms pull` goes on with the download.
    """
    from .running import RunningServer

    server = RunningServer.find(config_dir, url, api_key)
    models = [] if server is None else server.call("GET", "running")["models"]
    instances = {row["instance"] for row in models if name in (row["instance"], row["model"])}
    for instance in sorted(instances):
        assert server is not None, "it has told of the models"
        server.call("POST", f"instances/{quote(instance, safe='')}/unload")
    paused = [] if instances else asyncio.run(_pause(config_dir, name))
    if not instances and not paused:
        if server is None:
            raise Unavailable("No server runs with this configuration.", hint="There is nothing to stop.")
        known = ", ".join(row["model"] for row in models) or "none"
        raise NotFound(f"No model '{name}' is in memory.", hint=f"In memory: {known}.")
    if as_json:
        click.echo(format_json({"unloaded": sorted(instances), "paused": paused}))
    for one in () if as_json else [*sorted(instances), *paused]:
        click.echo(f"stopped {one}")


async def _under_way(config_dir: Path) -> list[dict[str, Any]]:
    async with configured(config_dir) as downloads:
        rows = [row for row in await downloads.all() if row.status != "complete"]
    return [
        {
            "name": row.name,
            "status": row.status,
            "progress": round(row.progress, 1),
            "total": row.total,
            "downloaded": row.downloaded,
            "error": row.error or None,
        }
        for row in rows
    ]


async def _pause(config_dir: Path, name: str) -> list[str]:
    async with configured(config_dir) as downloads:
        rows = [row for row in await downloads.all() if row.under_way and name in (row.name, row.repo)]
        for row in rows:
            await downloads.pause(*row.key)
    return [row.name for row in rows]
