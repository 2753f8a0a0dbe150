"""Where personalities lie: which folders below a root hold one, and the id of each.

A personality's id is its path below the root: `lollms`, `generic/lollms` or `english/generic/lollms`. Names
are no ids: in the published collections a dozen of them occur more than once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

FILES = ("config.yaml", "SOUL.md")
"""What makes a folder a personality; the first one found counts."""

MAX_DEPTH = 4
"""language/category/name, and the published collections nest a few one deeper."""


class PersonalityFolder(msgspec.Struct, frozen=True):
    """A folder that holds a personality, and the file that describes it."""

    id: str
    path: Path
    file: Path

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def category(self) -> str | None:
        """The folder around it, None directly below the root."""
        parts = self.id.split("/")
        return parts[-2] if len(parts) > 1 else None


def find_folders(root: Path) -> Iterator[PersonalityFolder]:
    """Every personality's folder below `root`, sorted; nothing when there is no such folder.

    Links to folders are never followed: those that stay inside lead to what is found anyway, those that lead
    out are reported.
    """
    if root.exists():
        real = Path(os.path.realpath(root))
        yield from _below(real, (), real)


def _below(folder: Path, parts: tuple[str, ...], root: Path) -> Iterator[PersonalityFolder]:
    entries = _entries(folder)
    file = next((name for name in FILES if name in entries), None)
    if file and parts:
        path = folder / file
        if _stays_in(root, path):
            yield PersonalityFolder("/".join(parts), folder, path)
    elif len(parts) < MAX_DEPTH:
        for name, entry in entries.items():
            if entry.is_symlink():
                if os.path.isdir(entry.path):  # which, unlike entry.is_dir(), survives links in a circle
                    _stays_in(root, folder / name)
            elif entry.is_dir() and not name.startswith("."):
                yield from _below(folder / name, (*parts, name), root)


def _entries(folder: Path) -> dict[str, os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        log.warning("No personality of %s is loaded: %s. Make it a readable folder.", folder, error.strerror)
        return {}
    return {entry.name: entry for entry in entries if _is_text(entry)}


def _is_text(entry: os.DirEntry[str]) -> bool:
    """Whether the name can be sent to a client; names that are no UTF-8 arrive with surrogates in them."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        log.warning("%r is left out: its name is no UTF-8. Rename it.", entry.path)
        return False
    return True


def _stays_in(root: Path, path: Path) -> bool:
    """Whether `path`, followed to its end, lies below `root`; says so where it does not."""
    if Path(os.path.realpath(path)).is_relative_to(root):
        return True
    log.warning("%s is left out: it leads out of %s. Copy what it leads to into that folder.", path, root)
    return False
