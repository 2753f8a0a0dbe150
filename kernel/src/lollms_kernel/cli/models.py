"""`lollms models`: what there is, and removing and looking at downloads; without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ..errors import LollmsError, NotFound
from . import options
from .listings import list_models
from .pull import configured, hub_option
from .tables import format_json, show

if TYPE_CHECKING:
    from ..downloads import Download, Downloads, Wanted


class ModelsGroup(click.Group):
    """Lists where no command is named, so that `lollms models INSTANCE` is a listing."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, with the command found or added in front."""
        named = next((word for word in args if word in self.commands), None)
        if named is not None:
            args = [named, *args[: args.index(named)], *args[args.index(named) + 1 :]]
        elif not {"--help", "-h"} & set(args):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ModelsGroup)
def models() -> None:
    """List the models, remove downloads, or tell about one.

    Without a command: list.
    """


models.add_command(list_models)


@models.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="OWNER/REPO[:QUANTIZATION|/FILE]...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.config_dir
@options.as_json
def remove(names: tuple[str, ...], yes: bool, config_dir: Path, as_json: bool) -> None:
    """Remove downloads and their files, whatever their state."""
    import sys

    from ..downloads import parse_wanted

    wanted = [parse_wanted(name) for name in names]

    def agreed(rows: list[Download]) -> bool:
        if yes or as_json or not sys.stdin.isatty():
            return True
        size = sum(row.downloaded for row in rows)
        return click.confirm(f"Remove {', '.join(row.name for row in rows)} ({size / 2**20:.1f} MiB)?")

    async def work() -> list[Download]:
        async with configured(config_dir) as downloads:
            rows = [row for one in wanted for row in await _matching(downloads, one)]
            return [await downloads.reset(*row.key) for row in rows] if agreed(rows) else []

    removed = asyncio.run(work())
    if as_json:
        click.echo(format_json([row.name for row in removed]))
    for row in () if as_json else removed:
        click.echo(f"removed {row.name}")


@models.command()
@click.argument("name", metavar="OWNER/REPO[:QUANTIZATION|/FILE]")
@hub_option
@options.config_dir
@options.as_json
def info(name: str, hub: str | None, config_dir: Path, as_json: bool) -> None:
    """Tell what a model is: its download here, and what the hub offers of its repository."""
    from ..downloads import parse_wanted

    rows = asyncio.run(_info(configured(config_dir, hub), parse_wanted(name)))
    show(
        rows,
        ("name", "status", "size", "quantization", "architecture", "context_length", "license", "path"),
        as_json=as_json,
        empty="There is nothing of this name.",
    )


async def _matching(downloads: Downloads, wanted: Wanted) -> list[Download]:
    """The downloads that a name means. Raises NotFound."""
    from ..downloads import quantization_of

    rows = [row for row in await downloads.all() if row.repo.casefold() == wanted.repo.casefold()]
    if wanted.file is not None:
        rows = [row for row in rows if row.file.casefold() == wanted.file.casefold()]
    if wanted.quantization is not None:
        rows = [row for row in rows if quantization_of(row.file) == wanted.quantization]
    if not rows:
        raise NotFound(
            f"'{wanted}' was not downloaded.",
            hint="`lollms models` lists models; files that you have put there yourself are yours to delete.",
        )
    return rows


async def _info(downloads: Downloads, wanted: Wanted) -> list[dict[str, Any]]:
    """What is here, and what the hub has more; the hub's silence is an error only where nothing is here."""
    async with downloads:
        try:
            here = await _matching(downloads, wanted)
        except NotFound:
            here = []
        rows = [await asyncio.to_thread(_described, downloads, row) for row in here]
        try:
            model, files = await downloads.files_of(wanted)
        except LollmsError:
            if rows:
                return rows
            raise
        if wanted.file is None and wanted.quantization is None:
            files = [file for file in model.files if file.path.lower().endswith(".gguf")]
        known = {row.file for row in here}
        from ..downloads import quantization_of

        return rows + [
            {
                "name": f"{model.id}/{file.path}",
                "status": "at the hub",
                "size": file.size,
                "quantization": quantization_of(file.path),
                "sha256": file.sha256 or None,
            }
            for file in files
            if file.path not in known
        ]


def _described(downloads: Downloads, row: Download) -> dict[str, Any]:
    from ..downloads import quantization_of
    from ..gguf_header import GgufError, read_header

    path = downloads.path(*row.key)
    told: dict[str, Any] = {
        "name": row.name,
        "status": row.status,
        "size": row.total,
        "quantization": quantization_of(row.file),
        "path": str(path),
        **{key: value for key, value in msgspec.to_builtins(row).items() if key not in ("status", "speed")},
    }
    try:
        header = read_header(path)
    except (GgufError, OSError):
        return told
    return {
        **told,
        "architecture": header.architecture,
        "context_length": header.own("context_length"),
        "license": header.text("general.license"),
        "title": header.text("general.name"),
        "chat_template": header.text("tokenizer.chat_template"),
    }
