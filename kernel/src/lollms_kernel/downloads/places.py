"""Where downloads lie: models under the names that they are used by, unfinished files and rows beside them.

models/gguf/OWNER/REPO/FILE.gguf      a verified model
models/gguf/.downloads/downloads.db   what is known of every download
models/gguf/.downloads/ID.part        an unfinished file
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from .names import check_file, check_repo
from .part import is_locked

OWN = ".downloads"


class Places:
    """The files of one folder of models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own = folder / OWN
        self.records = self.own / "downloads.db"

    def target(self, repo: str, file: str) -> Path:
        """Where the file goes. Raises InvalidRequest for names that would lead elsewhere."""
        return self.folder.joinpath(*check_repo(repo).split("/"), *check_file(file).split("/"))

    def part(self, repo: str, file: str) -> Path:
        """Its unfinished form; the name says nothing, so that every length and letter fits."""
        return self.own / f"{hashlib.sha256(f'{repo}/{file}'.encode()).hexdigest()[:32]}.part"

    def remove(self, repo: str, file: str) -> None:
        """Take a model and its unfinished form away, and folders that become empty."""
        target = self.target(repo, file)
        self.part(repo, file).unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        for parent in target.parents:
            if parent == self.folder:
                break
            with contextlib.suppress(OSError):  # it is not empty, or not there
                parent.rmdir()

    def sweep(self, known: Iterable[tuple[str, str]]) -> None:
        """Remove unfinished files that belong to no row and that nobody works on."""
        kept = {self.part(*key) for key in known}
        for path in self._parts():
            if path not in kept and not is_locked(path):
                path.unlink(missing_ok=True)

    def _parts(self) -> Iterator[Path]:
        yield from self.own.glob("*.part")
