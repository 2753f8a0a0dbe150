"""`lollms ollama pull|list|ps`: the models of the Ollama that an instance talks to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from lollms_kernel.config.decode import convert
from lollms_kernel.config.load import instance_file, load_config, read_instance, resolve_config_dir
from lollms_kernel.errors import ConfigError, LollmsError, ModelNotFound
from lollms_kernel.upstream import Upstream, paced

from .binding import OllamaBinding
from .refusals import explain
from .settings import OllamaSettings, check, service_of

if TYPE_CHECKING:
    from ollama import AsyncClient

Command = TypeVar("Command", bound=Callable[..., Any])
Work = Callable[["AsyncClient", Upstream], Awaitable[None]]

VERIFYING = 1800.0
"""Seconds of silence while a large download is checked."""


@click.group()
def ollama() -> None:
    """Look after the models of an Ollama server."""


def _which(command: Command) -> Command:
    """Which Ollama is meant."""
    for option in (
        click.option("--instance", metavar="NAME", help="The binding instance, where there are several."),
        click.option("--host", metavar="URL", help="Another Ollama than the instance's."),
        click.option(
            "--config-dir",
            envvar="LOLLMS_CONFIG_DIR",
            metavar="DIR",
            show_default="lollms_configs",
            help="The folder of main_config.yaml.",
        ),
    ):
        command = option(command)
    return command


@ollama.command()
@click.argument("names", nargs=-1, required=True)
@_which
def pull(names: tuple[str, ...], **which: str | None) -> None:
    """Download models from Ollama's library, e.g. llama3.2 or qwen3:4b. An interrupted download goes on."""

    async def work(client: AsyncClient, upstream: Upstream) -> None:
        for name in names:
            await _pull(client, upstream, name)

    _run(work, which)


@ollama.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_which
def list_models(as_json: bool, **which: str | None) -> None:
    """The models that Ollama has."""

    async def work(client: AsyncClient, upstream: Upstream) -> None:
        found = await upstream.ask(client.list)
        rows = [
            {
                "name": entry.model,
                "size": _bytes(entry.size),
                "parameters": entry.details.parameter_size if entry.details else None,
                "quantization": entry.details.quantization_level if entry.details else None,
                "modified": entry.modified_at,
            }
            for entry in found.models
        ]
        _show(rows, as_json, empty="Ollama has no model yet; `lollms ollama pull llama3.2` fetches one.")

    _run(work, which)


@ollama.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_which
def ps(as_json: bool, **which: str | None) -> None:
    """The models that are loaded now, with their memory and context."""

    async def work(client: AsyncClient, upstream: Upstream) -> None:
        found = await upstream.ask(client.ps)
        rows = [
            {
                "name": entry.model,
                "size": _bytes(entry.size),
                "vram": _bytes(entry.size_vram),
                "context": entry.context_length,
                "until": entry.expires_at,
            }
            for entry in found.models
        ]
        _show(rows, as_json, empty="No model is loaded.")

    _run(work, which)


# --- the instance -------------------------------------------------------------------------------------------------


def find_settings(instance: str | None, host: str | None, config_dir: str | None) -> OllamaSettings:
    """The settings of the instance that is meant; the defaults where none is configured. Raises ConfigError."""
    loaded = load_config(resolve_config_dir(config_dir, os.environ))
    kind = OllamaBinding.type_name
    known = [name for name, type_name in loaded.main.bindings_map.items() if type_name == kind]
    if instance is None and len(known) > 1 and host is None:
        raise ConfigError(
            "There are several Ollama instances.", hint=f"Name one with --instance: {', '.join(known)}."
        )
    if instance is not None and instance not in known:
        raise ConfigError(
            f"No Ollama instance is called '{instance}'.", hint=f"There are: {', '.join(known) or 'none'}."
        )
    name = instance or (known[0] if known and host is None else None)
    if name is None:
        settings = OllamaSettings(type=kind, binding_instance_name="ollama")
    else:
        settings = convert(read_instance(loaded, name), OllamaSettings, str(instance_file(loaded, name)))
    if host is not None:
        settings = msgspec.structs.replace(
            settings, host=host, api_key=settings.api_key if instance else None
        )
    check(settings)
    return settings


def _run(work: Work, which: dict[str, str | None]) -> None:
    settings = find_settings(which["instance"], which["host"], which["config_dir"])
    unavailable = OllamaBinding.unavailable_reason()
    if unavailable is not None:
        raise unavailable
    from .client import make_client

    async def main() -> None:
        service = service_of(settings)
        upstream = Upstream(service, settings, lambda error: explain(service, error))
        async with make_client(settings) as client:
            await work(client, upstream)

    asyncio.run(main())


# --- what is printed ------------------------------------------------------------------------------------------------


async def _pull(client: AsyncClient, upstream: Upstream, name: str) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    parts = paced(
        lambda: _pulling(client, name),
        first=upstream.limits.first_token_timeout,
        idle=VERIFYING,
        what=str(upstream.service),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, Any] = {}
        said = None
        try:
            async with aclosing(parts):
                async for part in parts:
                    if part.digest and part.total:
                        if part.digest not in tasks:
                            tasks[part.digest] = progress.add_task(part.digest[7:19], total=part.total)
                        progress.update(tasks[part.digest], completed=part.completed or 0)
                    elif part.status != said:
                        said = part.status
                        console.print(f"{name}: {said}", highlight=False, markup=False)
        except Exception as error:  # whatever the library raises becomes one line with its cure
            raise _pull_error(upstream, name, error) from None


async def _pulling(client: AsyncClient, name: str) -> Any:
    return await client.pull(name, stream=True)


def _pull_error(upstream: Upstream, name: str, error: Exception) -> LollmsError:
    text = str(getattr(error, "error", "")) or str(getattr(error, "text", ""))
    if "file does not exist" in text or "not found" in text:
        return ModelNotFound(
            f"Ollama's library has no model '{name}'.", hint="https://ollama.com/library lists them."
        )
    return upstream.explain(error)


def _show(rows: Sequence[dict[str, Any]], as_json: bool, empty: str) -> None:
    if as_json:
        click.echo(msgspec.json.encode(rows).decode())
        return
    if not rows:
        click.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    Console().print(table, highlight=False, markup=False)


def _bytes(size: int | None) -> int | None:
    """A plain number: the library has a type of its own for sizes."""
    return None if size is None else int(size)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        local = value.astimezone(UTC)
        return "for ever" if local.year > 2200 else local.strftime("%Y-%m-%d %H:%M UTC")
    if isinstance(value, int) and value > 1_000_000:
        return f"{value / 1e9:.1f} GB"
    return "-" if value is None else str(value)
