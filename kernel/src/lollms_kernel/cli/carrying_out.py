"""A draft of the configuration, shown, agreed to, written, and taken over by the server if it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .diffs import show_diff

if TYPE_CHECKING:
    from ..drafts import Draft


def carry_out(
    draft: Draft,
    *,
    config_dir: Path,
    url: str | None = None,
    api_key: str | None = None,
    grace: float | None = None,
    dry_run: bool = False,
    ask: Callable[[], bool] | None = None,
    before_writing: Callable[[], None] = lambda: None,
    instances: Sequence[str] = (),
) -> bool:
    """Whether the draft is in force now, or will be at the next start; `ask` says whether its user agrees.

    A running server takes the change over. Where it refuses, the files become what they were and its error is raised.
    `instances` are those that the change is about.
    """
    from .running import RunningServer

    draft.check()
    changes = draft.diff()
    if not changes:
        click.echo("Nothing changes: the configuration says so already.", err=True)
        return True
    show_diff(changes)
    if dry_run:
        return False
    server = RunningServer.find(config_dir, url, api_key)
    if ask is not None and not ask():
        click.echo("Nothing was written.", err=True)
        return False
    before_writing()
    take_back = draft.write()
    if server is None:
        click.echo("Written. No server runs with this configuration: it counts at the next start.", err=True)
        _warn(config_dir, instances)
        place = "" if config_dir == Path.cwd() / "lollms_configs" else f" --config-dir {config_dir}"
        click.echo(f"Start it: lollms serve{place}", err=True)
        return True
    try:
        result = server.reload(grace)
    except BaseException:
        take_back()
        click.echo("Nothing was changed: the files are as they were.", err=True)
        raise
    click.echo(f"Written, and taken over by the server at {server.url}.", err=True)
    tell(result)
    return True


def tell(result: dict[str, Any]) -> None:
    """Say what a server has taken over."""
    for what in ("added", "changed", "removed", "retried"):
        if result["instances"][what]:
            click.echo(f"{what}: {', '.join(result['instances'][what])}", err=True)
    if result["needs_restart"]:
        click.echo(f"at the next start: {', '.join(result['needs_restart'])}", err=True)


def _warn(config_dir: Path, instances: Sequence[str]) -> None:
    """Say what keeps instances from serving that nobody has opened yet."""
    from .opening import build_kernel

    if not instances:
        return
    kernel = build_kernel(config_dir)
    for name in instances:
        error = kernel.instance(name).error
        if error is not None:
            click.echo(f"lollms: {name} will not serve: {error.detail}", err=True)
