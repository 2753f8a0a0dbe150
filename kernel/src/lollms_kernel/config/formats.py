"""The formats of configuration files, chosen by extension. A new format is one entry of `FORMATS`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ..errors import ConfigError
from .describe import kind_of
from .files import read_bytes, unreadable
from .json_format import parse_json, write_json
from .places import Place
from .toml_format import TomlEditor, parse_toml, write_toml
from .yaml_format import parse_yaml_bytes


class Editor(Protocol):
    """A text that changes value by value and keeps comments and layout."""

    def put(self, place: Place, value: Any) -> None:
        """Set the value at a place; sections on the way are created."""

    def drop(self, place: Place) -> None:
        """Take the value at a place away."""

    def text(self) -> str:
        """The whole text as it is now."""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """How values are read from and written to the bytes of a file."""

    name: str
    extensions: tuple[str, ...]
    parse: Callable[[bytes, str], Any]
    """Bytes to plain values, None if there are none; the text names the file in errors."""
    write: Callable[[dict[str, Any]], bytes]
    """Values to the bytes of a new file."""
    edit: Callable[[bytes, str], Editor] | None = None
    """An editor of what the file holds; None for formats without comments, which are written anew."""


def _write_yaml(values: dict[str, Any]) -> bytes:
    from .yaml_edit import write_yaml

    return write_yaml(values)


def _edit_yaml(data: bytes, where: str) -> Editor:
    from .yaml_edit import YamlEditor

    return YamlEditor(data, where)


def _parse_sqlite(data: bytes, where: str) -> Any:
    from .sqlite_format import parse_sqlite

    return parse_sqlite(data, where)


def _write_sqlite(values: dict[str, Any]) -> bytes:
    from .sqlite_format import write_sqlite

    return write_sqlite(values)


FORMATS = (
    Format(
        name="yaml",
        extensions=(".yaml", ".yml"),
        parse=parse_yaml_bytes,
        write=_write_yaml,
        edit=_edit_yaml,
    ),
    Format(name="toml", extensions=(".toml",), parse=parse_toml, write=write_toml, edit=TomlEditor),
    Format(name="json", extensions=(".json",), parse=parse_json, write=write_json),
    Format(
        name="sqlite",
        extensions=(".db", ".sqlite", ".sqlite3"),
        parse=_parse_sqlite,
        write=_write_sqlite,
    ),
)

EXTENSIONS = tuple(extension for form in FORMATS for extension in form.extensions)
"""Extensions that mark a configuration file, in the order of the search."""

NAMES = tuple(form.name for form in FORMATS)


def format_of(path: Path) -> Format:
    """The format of a file by its extension. Raises ConfigError for one that is not known."""
    for form in FORMATS:
        if path.suffix.lower() in form.extensions:
            return form
    raise ConfigError(
        f"{path}: configuration of the format '{path.suffix}' cannot be read.",
        hint=f"Use one of {', '.join(EXTENSIONS)}.",
    )


def format_named(name: str) -> Format:
    """The format of this name."""
    return next(form for form in FORMATS if form.name == name)


def find_file(folder: Path, stem: str) -> Path | None:
    """The configuration file `stem` of a folder, None if there is none. Raises ConfigError if there are several."""
    try:
        names = set(os.listdir(folder))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(folder, error) from None
    found = [folder / f"{stem}{extension}" for extension in EXTENSIONS if f"{stem}{extension}" in names]
    if len(found) > 1:
        raise ConfigError(
            f"{folder} holds {' and '.join(file.name for file in found)}; only one of them can count.",
            hint="Keep one and move the others away.",
        )
    return found[0] if found else None


def read_mapping(path: Path) -> dict[str, Any]:
    """What a configuration file holds; {} if it is empty.

    Raises ConfigError if it is broken or of a format that is not known.
    """
    return parse_mapping(read_bytes(path), path)


def parse_mapping(data: bytes, path: Path) -> dict[str, Any]:
    """What the bytes of a configuration file hold; {} if they are empty. Raises ConfigError."""
    content = format_of(path).parse(data, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} holds {kind_of(content)} where keys and values should be.",
            hint="Begin lines with `key:`.",
        )
    return content
