"""`lollms keys`: who may use the server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .tables import show

if TYPE_CHECKING:
    from ..config.store import Document

PATH = "security.allowed_api_keys"
COLUMNS = ("name", "id", "stored", "requests_per_minute", "concurrent_streams", "bindings", "personalities")


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    A running server takes changes over within seconds. Keys are in security.allowed_api_keys of the main file.
    """


@keys.command()
@click.argument("name")
@options.config_dir
@click.option("--requests-per-minute", type=click.IntRange(1), metavar="N", help="Answer more with 429.")
@click.option("--concurrent-streams", type=click.IntRange(1), metavar="N", help="Generations at once.")
@click.option(
    "--binding", "bindings", multiple=True, metavar="NAME", help="Only this instance; may be repeated."
)
@click.option(
    "--personality", "personalities", multiple=True, metavar="NAME", help="Only this one; may be repeated."
)
@click.option(
    "--plain", is_flag=True, help="Keep the key itself, encrypted if a key is set, not only its hash."
)
def add(name: str, config_dir: Path, plain: bool, **limits: Any) -> None:
    """Make a key for NAME and print it.

    Only its hash is kept, so this is the only time that it can be seen.
    """
    from ..config.api_keys import hashed, make_key
    from ..config.store import open_main

    key = make_key()
    entry: dict[str, Any] = {"name": name, **({"key": key} if plain else {"hash": hashed(key)})}
    for limit, value in limits.items():
        if value:
            entry[limit] = list(value) if isinstance(value, tuple) else value
    document = open_main(config_dir)
    present = _entries(document)
    if present:
        document.set(f"{PATH}[{len(present)}]", entry)
    else:
        document.set(PATH, [entry])
    document.save()
    click.echo(key)
    click.echo(f"This is the key of {name}; it is not shown again. Clients send it as X-API-Key.", err=True)


@keys.command("list")
@options.config_dir
@options.as_json
def list_keys(config_dir: Path, as_json: bool) -> None:
    """List the keys, never what they are."""
    from ..config.store import open_main

    document = open_main(config_dir)
    document.check()
    rows = [_row(entry, document) for entry in _entries(document)]
    show(rows, COLUMNS, as_json=as_json, empty="There is no key: whoever reaches the server may use it.")


@keys.command()
@click.argument("name")
@options.config_dir
def revoke(name: str, config_dir: Path) -> None:
    """Take the key of NAME away (or the one with this id); answers under way end."""
    from ..config.store import open_main
    from ..errors import ConfigError

    document = open_main(config_dir)
    rows = [_row(entry, document) for entry in _entries(document)]
    found = [index for index, row in enumerate(rows) if name in (row["name"], row["id"])]
    if not found:
        known = ", ".join(str(row["name"] or row["id"]) for row in rows) or "none"
        raise ConfigError(f"There is no key of '{name}'.", hint=f"There are: {known}.")
    for index in reversed(found):
        document.remove(f"{PATH}[{index}]")
    document.save()
    click.echo(f"The key of {name} opens nothing any more.", err=True)
    if len(found) == len(rows):
        _tell_that_none_is_left(config_dir)


def _tell_that_none_is_left(config_dir: Path) -> None:
    from ..config.exposure import is_exposed
    from ..config.load import load_config

    main = load_config(config_dir, lenient=True).main
    if is_exposed(main.server.host, main):
        click.echo(
            "It was the last one: a running server refuses everybody, a stopped one will not start.", err=True
        )
    else:
        click.echo("It was the last one: the server asks for no key now.", err=True)


def _entries(document: Document) -> list[Any]:
    try:
        found = document.get(PATH)
    except KeyError:
        return []
    return found if isinstance(found, list) else []


def _row(entry: Any, document: Document) -> dict[str, Any]:
    """What may be known of a key."""
    from ..config.api_keys import HASH_PREFIX, digest, is_hash, key_id
    from ..config.encryption import UndecryptableError, is_encrypted
    from ..config.references import BadReferenceError, has_reference
    from ..config.resolve import meaning

    fields = entry if isinstance(entry, dict) else {}
    text = str(fields.get("key") or fields.get("hash") or "") if fields else str(entry)
    stored = "hash" if is_hash(text) else "encrypted" if is_encrypted(text) else "plain"
    stored = "variable" if stored == "plain" and has_reference(text) else stored
    try:
        plain = meaning(text, document.keys, os.environ)
        known = bytes.fromhex(plain.removeprefix(HASH_PREFIX)) if is_hash(plain) else digest(plain)
        identity = key_id(known)
    except (UndecryptableError, BadReferenceError):
        identity = None  # the key is not to be known here
    limits = {column: fields.get(column) for column in COLUMNS[3:]}
    return {"name": fields.get("name"), "id": identity, "stored": stored, **limits}
