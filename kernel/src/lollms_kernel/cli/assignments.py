"""`key=value` of a command line as values of a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import msgspec


def split(text: str) -> tuple[str, str]:
    """Key and value of `key=value`. Raises a usage error."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"'{text}' is no assignment; write it as key=value.")
    return key, value


def assignments(texts: Iterable[str], schema: type[msgspec.Struct] | None) -> dict[str, Any]:
    """Paths and values for a Struct, read as `lollms config set` reads them; None: nothing is known of the Struct."""
    from ..config.effective import read_value, type_at
    from ..config.places import parse_place

    return {key: read_value(text, type_at(schema, parse_place(key))) for key, text in map(split, texts)}
