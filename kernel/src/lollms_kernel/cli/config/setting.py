"""`lollms config set` and `unset`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .. import options
from .target import instance, open_target, save


@click.command("set")
@click.argument("path")
@click.argument("value", required=False)
@options.config_dir
@instance
def set_value(path: str, value: str | None, config_dir: Path, instance: str | None) -> None:
    """Set the value at PATH.

    VALUE is written as in YAML: 9700, true, [a, b], null; a text needs no quotes. '${NAME}' stands for an environment
    variable and is kept as it is. Without VALUE it is asked for, or read from stdin: what is secret then stays out of
    the history of the shell.
    """
    from ...config.effective import read_value, type_at
    from ...config.places import parse_place

    document = open_target(config_dir, instance)
    place = parse_place(path)
    wanted = type_at(document.schema, place)
    text = _asked(path, wanted) if value is None else value
    document.set(place, read_value(text, wanted))
    save(document)


@click.command()
@click.argument("path")
@options.config_dir
@instance
def unset(path: str, config_dir: Path, instance: str | None) -> None:
    """Take the value at PATH out of the file, so that its default counts."""
    from ...config.effective import find_value

    document = open_target(config_dir, instance)
    find_value(document.values, path)
    document.remove(path)
    save(document)


def _asked(path: str, type_: Any) -> str:
    from ...config.secrets import may_hold_secret, reads_like_a_secret

    if not sys.stdin.isatty():
        return sys.stdin.read().rstrip("\n")
    name = path.rpartition(".")[2]
    hidden = reads_like_a_secret(name) if type_ is None else may_hold_secret(type_)
    answer: str = click.prompt(path, hide_input=hidden, default="", show_default=False)
    return answer
