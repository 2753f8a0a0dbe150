"""`lollms pull`: a model from a hub into the folder of models, ready to be used by name."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from . import options
from .hub import configured, hub_option
from .tables import format_json

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ..downloads import Download, Downloads, Pulled, Wanted


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="OWNER/REPO[:QUANTIZATION|/FILE]...")
@hub_option
@options.config_dir
@options.as_json
def pull(models: tuple[str, ...], hub: str | None, config_dir: Path, as_json: bool) -> None:
    """Download models, verified, and go on where an earlier try stopped.

    Without a quantization the usual one is taken (Q4_K_M if there is one). The name that is printed works everywhere
    at once, also in a server that runs.
    """
    from ..downloads import parse_wanted

    wanted = [parse_wanted(text) for text in models]
    pulled = asyncio.run(_pull(configured(config_dir, hub), wanted, Shown.choose(as_json)))
    if as_json:
        click.echo(
            format_json([{"name": one.name, "paths": [str(path) for path in one.paths]} for one in pulled])
        )
    else:
        for one in pulled:
            click.echo(one.name)


async def _pull(downloads: Downloads, wanted: list[Wanted], shown: Shown) -> list[Pulled]:
    """All of them, one after the other; interrupted, what is under way is paused."""
    under_way: list[tuple[str, str]] = []

    def note(rows: list[Download]) -> None:
        under_way[:] = [row.key for row in rows if row.under_way]
        shown.show(rows)

    async with downloads:
        with shown:
            try:
                return [await downloads.ensure(one, note) for one in wanted]
            except asyncio.CancelledError:
                for key in under_way:
                    await downloads.pause(*key)
                if under_way:
                    click.echo(
                        "\nlollms: stopped; what has arrived is kept, the same command goes on.", err=True
                    )
                raise


class Shown(AbstractContextManager["Shown"]):
    """Progress, for nobody: programs read the result."""

    @staticmethod
    def choose(as_json: bool) -> Shown:
        """Bars on a terminal, lines in a log, nothing beside JSON."""
        if as_json:
            return Shown()
        return Bars() if sys.stderr.isatty() else Lines()

    def show(self, rows: list[Download]) -> None:
        """What has changed."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Lines(Shown):
    """One line for each tenth of a file."""

    def __init__(self, say: Callable[[str], Any] = lambda text: click.echo(text, err=True)) -> None:
        self._say = say
        self._tenths: dict[str, int] = {}

    def show(self, rows: list[Download]) -> None:
        """See `Shown.show`."""
        for row in rows:
            tenth = int(row.progress // 10)
            if row.status == "downloading" and tenth > self._tenths.get(row.name, -1):
                self._tenths[row.name] = tenth
                self._say(f"{row.name}: {tenth * 10} % of {row.total / 2**20:.1f} MiB")


class Bars(Shown):
    """A bar for each file."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            Speed(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, rows: list[Download]) -> None:
        """See `Shown.show`."""
        for row in rows:
            total = row.total or None
            if row.name not in self._tasks:
                # what was here before does not count into the speed
                self._tasks[row.name] = self._progress.add_task(
                    row.file, total=total, completed=row.downloaded, start=row.status == "downloading"
                )
            task = self._tasks[row.name]
            if row.status == "downloading":
                self._progress.start_task(task)
            self._progress.update(task, total=total, completed=row.downloaded)
