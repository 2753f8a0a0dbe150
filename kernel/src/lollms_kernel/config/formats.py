"""Configuration formats by file extension. A new format is one reader and one line here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .describe import kind_of
from .files import unreadable
from .yaml_format import read_yaml

READERS: Mapping[str, Callable[[Path], Any]] = {".yaml": read_yaml, ".yml": read_yaml}

EXTENSIONS = (".yaml", ".yml", ".toml", ".json", ".db", ".sqlite", ".sqlite3")
"""Extensions that mark a configuration file, in the order of the search; not all have a reader yet."""


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
    """What a configuration file holds, without `__version__`; {} if it is empty.

    Raises ConfigError if it is broken or of a format without reader.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"{path}: configuration of the format '{path.suffix}' cannot be read.",
            hint=f"Write it as YAML: {path.with_suffix('.yaml').name}.",
        )
    content = reader(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} holds {kind_of(content)} where keys and values should be.",
            hint="Begin lines with `key:`.",
        )
    content.pop("__version__", None)  # which schema wrote the file: of no meaning until schemas differ
    return content
