"""The file that a command is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ...config.store import Document

instance = click.option(
    "--instance", metavar="NAME", help="The settings of this binding instance instead of the main file."
)


def open_target(config_dir: Path, name: str | None) -> Document:
    """The main file, or an instance's settings checked against what its binding knows. Raises ConfigError."""
    from ...config.load import load_config
    from ...config.store import open_instance, open_main

    if name is None:
        return open_main(config_dir)
    from ..opening import binding_settings

    loaded = load_config(config_dir, lenient=True)
    return open_instance(loaded, name, binding_settings().get(loaded.main.bindings_map.get(name, "")))


def save(document: Document) -> None:
    """Save a document and tell what that changed."""
    lines = document.diff()
    document.save()
    tell(lines)
    click.echo(f"{document.path} is saved." if lines else f"{document.path} says so already.", err=True)


def tell(lines: list[str]) -> None:
    """Show what is added and taken away."""
    for line in lines:
        click.secho(line, fg="green" if line.startswith("+") else "red")
