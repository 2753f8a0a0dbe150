"""Several files as they were, to bring them back together."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .atomic import Change, replace_files
from .files import read_bytes


class Snapshot:
    """What files held at a moment, None for those that were not there."""

    def __init__(self, paths: list[Path]) -> None:
        self._files = {path: _content(path) for path in paths}

    def restorer(self) -> Callable[[], None]:
        """Call it now; what it gives brings every file back that is still as it is now."""
        written = {path: _content(path) for path in self._files}

        def restore() -> None:
            changed = {path: old for path, old in self._files.items() if old != written[path]}
            backups = {path for path in changed if path.suffix == ".bak"}
            lost = {path: old for path, old in changed.items() if old is not None and path not in backups}
            replace_files([Change(path=path, data=old, before=written[path]) for path, old in lost.items()])
            for path, old in changed.items():
                if old is None:
                    path.unlink(missing_ok=True)
                elif path in backups:
                    path.write_bytes(old)

        return restore


def _content(path: Path) -> bytes | None:
    return read_bytes(path) if os.path.lexists(path) else None
