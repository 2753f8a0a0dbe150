"""`lollms models`: what there is, and removing and looking at downloads; without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ..errors import BindingUnavailable, LollmsError, NotFound
from . import options
from .hub import configured, hub_option
from .tables import format_json, show

if TYPE_CHECKING:
    from ..downloads import Download, Downloads, Wanted
    from ..kernel import LocalKernel

LIST_TIMEOUT = 60.0
"""How long an instance may take to name its models; a worker starts in that time too."""


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


@models.command("list")
@click.argument("instance", required=False)
@options.config_dir
@options.as_json
def list_models(instance: str | None, config_dir: Path, as_json: bool) -> None:
    """List the models.

    Those of INSTANCE, or of every binding instance.
    """
    from .opening import build_kernel

    kernel = build_kernel(config_dir)
    rows, problems = asyncio.run(_models(kernel, instance))
    for problem in problems:
        if instance is not None:
            raise problem
        click.echo(f"lollms: {problem.detail}", err=True)
    show(
        rows,
        ("instance", "name", "model_type", "context_size", "size", "quantization_level"),
        as_json=as_json,
        empty="There is no model; `lollms pull OWNER/REPO` downloads one.",
    )


async def _models(kernel: LocalKernel, only: str | None) -> tuple[list[dict[str, Any]], list[LollmsError]]:
    """Rows of all instances asked at once, and what went wrong with the others."""
    async with kernel:
        names = [only] if only is not None else [instance.name for instance in kernel.instances()]
        results = await asyncio.gather(*(_models_of(kernel, name) for name in names), return_exceptions=True)
    rows: list[dict[str, Any]] = []
    problems: list[LollmsError] = []
    for result in results:
        if isinstance(result, LollmsError):
            problems.append(result)
        elif isinstance(result, BaseException):
            raise result
        else:
            rows += result
    return rows, problems


async def _models_of(kernel: LocalKernel, instance: str) -> list[dict[str, Any]]:
    try:
        async with asyncio.timeout(LIST_TIMEOUT):
            found = await kernel.binding(instance).list_models()
    except TimeoutError:
        raise BindingUnavailable(
            f"Binding instance '{instance}' did not name its models within {LIST_TIMEOUT:.0f} s.",
            hint="'lollms doctor' may know why.",
        ) from None
    return [{"instance": instance, **msgspec.to_builtins(model)} for model in found]


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
    from ..quantization import quantization_of

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
        from ..quantization import quantization_of

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
    from ..gguf_header import GgufError, read_header
    from ..quantization import quantization_of

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
