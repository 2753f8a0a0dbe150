"""Where personalities lie: which folders below a root hold one, and the id of each.

A personality's id is its path below the root: `lollms`, `generic/lollms` or `english/generic/lollms`. Names
are no ids: in the published collections a dozen of them occur more than once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

Say = Callable[[str], None]
"""Takes a warning in words."""

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


def find_folders(root: Path, say: Say = log.warning) -> Iterator[PersonalityFolder]:
    """Every personality's folder below `root`, sorted; nothing when there is no such folder.

    Links to folders are never followed: those that stay inside lead to what is found anyway, those that lead
    out are reported.
    """
    if root.exists():
        real = Path(os.path.realpath(root))
        yield from _below(str(real), "", real, say)


def _below(folder: str, id: str, root: Path, say: Say) -> Iterator[PersonalityFolder]:
    entries = _entries(folder, say)
    file = next((name for name in FILES if name in entries), None)
    if file and id:
        # Only a link can lead out: the way down has followed none.
        if not entries[file].is_symlink() or _stays_in(root, Path(folder, file), say):
            yield PersonalityFolder(id, Path(folder), Path(folder, file))
    elif id.count("/") < MAX_DEPTH - 1 or not id:
        for name, entry in entries.items():
            if entry.is_symlink():
                if os.path.isdir(entry.path):  # which, unlike entry.is_dir(), survives links in a circle
                    _stays_in(root, Path(entry.path), say)
            elif entry.is_dir() and not name.startswith("."):
                yield from _below(entry.path, f"{id}/{name}" if id else name, root, say)


def _entries(folder: str, say: Say) -> dict[str, os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        say(f"No personality of {folder} is loaded: {error.strerror}. Make it a readable folder.")
        return {}
    return {entry.name: entry for entry in entries if _is_text(entry, say)}


def _is_text(entry: os.DirEntry[str], say: Say) -> bool:
    """Whether the name can be sent to a client; names that are no UTF-8 arrive with surrogates in them."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        say(f"{entry.path!r} is left out: its name is no UTF-8. Rename it.")
        return False
    return True


def _stays_in(root: Path, path: Path, say: Say) -> bool:
    """Whether `path`, followed to its end, lies below `root`; says so where it does not."""
    if Path(os.path.realpath(path)).is_relative_to(root):
        return True
    say(f"{path} is left out: it leads out of {root}. Copy what it leads to into that folder.")
    return False
