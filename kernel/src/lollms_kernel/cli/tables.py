"""Shows rows to people as a table, to programs as tab-separated lines or JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Print `columns` of each row; `empty` is said (on stderr) instead of a table without rows.

    On a terminal a table, in a pipe one line per row with tabs between the values and no header, as JSON the
    whole rows.
    """
    if as_json:
        click.echo(format_json(rows))
    elif not rows:
        click.echo(empty, err=True)
    elif sys.stdout.isatty():
        _show_table(rows, columns)
    else:
        for row in rows:
            click.echo("\t".join(" ".join(_text(row.get(column)).split()) for column in columns))


def format_json(value: Any) -> str:
    """The value as indented JSON text."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(row.get(column))) for column in columns))
    Console().print(table)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)
