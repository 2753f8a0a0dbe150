"""`lollms config show`, `get`, `check` and `schema`: nothing here changes a file."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent
from typing import Any

import click

from .. import options
from ..tables import format_json
from .target import instance, open_target


@click.command()
@options.config_dir
@instance
@click.option("--file", "only_file", is_flag=True, help="Only what the file says, without defaults.")
@options.as_json
def show(config_dir: Path, instance: str | None, only_file: bool, as_json: bool) -> None:
    """Print the configuration that counts, secrets masked."""
    from ...config.secrets import masked

    document = open_target(config_dir, instance)
    document.check()
    values = masked(document.values if only_file else _effective(document), document.schema)
    if as_json:
        click.echo(format_json(values))
        return
    click.echo(f"# {document.path}" if document.exists else f"# no {document.path}: the defaults hold")
    click.echo(_as_yaml(values), nl=False)


@click.command()
@click.argument("path")
@options.config_dir
@instance
@click.option("--reveal", is_flag=True, help="Print secrets, decrypted, and the values of variables.")
@options.as_json
def get(path: str, config_dir: Path, instance: str | None, reveal: bool, as_json: bool) -> None:
    """Print the value at PATH."""
    from ...config.effective import find_value
    from ...config.faults import config_error
    from ...config.resolve import resolve, revealed
    from ...config.secrets import masked

    document = open_target(config_dir, instance)
    values = _effective(document)
    if reveal:
        values, faults = resolve(values, document.keys, os.environ)
        if faults:
            raise config_error(str(document.path), faults)
        values = revealed(values)
    else:
        values = masked(values, document.schema)
    value = find_value(values, path)
    if as_json:
        click.echo(format_json(value))
    elif isinstance(value, str):
        click.echo(value)
    else:
        click.echo(_as_yaml(value).rstrip("\n"))


@click.command()
@options.config_dir
def check(config_dir: Path) -> None:
    """Say what is wrong with the configuration; changes nothing.

    Looks at the main file and at every instance file, as the server will read them. The exit code is 2 if something is
    wrong.
    """
    import sys

    from .checking import examine

    problems = 0
    for level, text, hint in examine(config_dir):
        problems += level == "error"
        mark, colour = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "error": ("FAIL", "red")}[level]
        click.echo(f"{click.style(f'{mark:<5}', fg=colour)} {text}")
        if hint:
            click.echo(f"      → {hint}")
    sys.exit(2 if problems else 0)


@click.command()
@click.argument("binding_type", required=False)
def schema(binding_type: str | None) -> None:
    """Print the JSON Schema of main_config, for editors.

    With BINDING_TYPE that of the instance files of this type.
    """
    from ...config.json_schema import formatted, json_schema, main_schema
    from ...errors import ConfigError
    from ..opening import binding_settings

    if binding_type is None:
        click.echo(formatted(main_schema()))
        return
    kinds = binding_settings()
    if binding_type not in kinds:
        raise ConfigError(
            f"No installed plugin has the binding type '{binding_type}'.",
            hint=f"There are: {', '.join(sorted(kinds))}.",
        )
    click.echo(formatted(json_schema(kinds[binding_type], f"An instance of {binding_type}")))


def _effective(document: Any) -> Any:
    from ...config.effective import with_defaults
    from ...config.migrations import upgrade_main
    from ...config.schema import MainConfig

    values = document.values
    if document.schema is MainConfig:
        values = upgrade_main(values, str(document.path)).values
    return with_defaults(values, document.schema)


def _as_yaml(value: Any) -> str:
    from ...config.yaml_edit import write_yaml

    if isinstance(value, dict):
        return write_yaml(value).decode() if value else "{}\n"
    text = write_yaml({"_": value}).decode().removeprefix("_:").removeprefix("\n")
    return dedent(text) if text.strip() else "null\n"
