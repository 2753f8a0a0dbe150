"""Models that `--hf-repo` names: downloaded once into a cache, resumed and verified as every download here."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click
import msgspec

from lollms_kernel.downloads import Download, Downloads, Wanted, check_file, parse_wanted
from lollms_kernel.errors import ConfigError
from lollms_kernel.quantization import quantization_of

PUBLIC = "https://huggingface.co"


def fetched(repo: str, file: str | None, *, offline: bool) -> Path:
    """The model's file, downloaded if need be. Raises ConfigError for `offline` without it, or what went wrong."""
    wanted = parse_wanted(repo)
    if file is not None:
        wanted = msgspec.structs.replace(wanted, file=check_file(file), quantization=None)
    return asyncio.run(_fetched(wanted, offline))


def cache_folder() -> Path:
    """Where downloaded models are: `LLAMA_CACHE`, else `lollms` in the user's folder of caches."""
    chosen = os.environ.get("LLAMA_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "lollms" / "gguf"


async def _fetched(wanted: Wanted, offline: bool) -> Path:
    address = os.environ.get("HF_ENDPOINT") or os.environ.get("MODEL_ENDPOINT") or PUBLIC
    downloads = Downloads(cache_folder(), address, os.environ.get("HF_TOKEN"))
    if offline and not await _is_here(downloads, wanted):
        await downloads.close()
        raise ConfigError(
            f"--offline: '{wanted}' is not in {cache_folder()}.", hint="Start once without --offline."
        )
    told = _Progress()
    async with downloads:
        pulled = await downloads.ensure(wanted, told)
    return pulled.paths[0]


async def _is_here(downloads: Downloads, wanted: Wanted) -> bool:
    for download in await downloads.all():
        if download.repo.casefold() != wanted.repo.casefold() or not await downloads.is_here(download):
            continue
        if wanted.file is not None:
            if download.file.casefold() == wanted.file.casefold():
                return True
        elif wanted.quantization in (None, quantization_of(download.file)):
            return True
    return False


class _Progress:
    """Tells on stderr how far a download is, in steps of ten percent."""

    def __init__(self) -> None:
        self._told = -1

    def __call__(self, downloads: list[Download]) -> None:
        total = sum(download.total for download in downloads)
        done = sum(download.downloaded for download in downloads)
        step = 10 * done // total if total else 0
        if step > self._told and any(download.status != "complete" for download in downloads):
            self._told = step
            click.echo(f"downloading {downloads[0].file}: {10 * step} %", err=True)
            sys.stderr.flush()
