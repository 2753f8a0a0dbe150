"""What is known of a personality's folder, as a value that a cache can keep: its card, or why there is none."""

from __future__ import annotations

import os

import msgspec

from lollms_kernel.contracts import PersonalityCard
from lollms_kernel.errors import ConfigError

from .card import build_card
from .folders import PersonalityFolder
from .formats import read_file
from .languages import translated, translations
from .scripts import LEGACY, WORKFLOW, Script, find_script

Mark = tuple[int, ...]
"""Changes whenever a file that a record was made of changes."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A folder as it was when its mark was taken. It has a card or an error."""

    mark: Mark
    file: str
    language: str | None = None
    """The translation that was asked for."""
    card: PersonalityCard | None = None
    script: Script | None = None
    error: str | None = None


def read_record(folder: PersonalityFolder, language: str | None) -> Record:
    """Read the folder's files; whatever is wrong ends in the record."""
    mark = mark_of(folder, language)
    try:
        fields = read_file(folder.file)
        if language:
            fields = translated(fields, folder.path, language)
        card = build_card(folder, fields)
        script = find_script(folder.path, fields)
    except ConfigError as error:
        return Record(mark=mark, file=folder.file.name, language=language, error=error.detail)
    card = msgspec.structs.replace(
        card,
        is_scripted=script is not None and script.kind == "workflow",
        legacy_script=script is not None and script.kind == "legacy",
        problems=tuple(fields.problems),
    )
    return Record(mark=mark, file=folder.file.name, language=language, card=card, script=script)


def mark_of(folder: PersonalityFolder, language: str | None) -> Mark:
    """Times, sizes and inodes of what a record is made of. Files are not opened."""
    path = str(folder.path)
    mark: list[int] = []
    _add(mark, str(folder.file))
    _add(mark, f"{path}/assets")
    if _add(mark, f"{path}/languages") and language:
        for file in translations(folder.path).values():
            _add(mark, str(file))
    if _add(mark, f"{path}/scripts"):
        _add(mark, f"{path}/{WORKFLOW}")
        _add(mark, f"{path}/{LEGACY}")
    return tuple(mark)


def _add(mark: list[int], path: str) -> bool:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        mark.append(0)
        return False
    mark += (found.st_mtime_ns, found.st_size, found.st_ino)
    return True
