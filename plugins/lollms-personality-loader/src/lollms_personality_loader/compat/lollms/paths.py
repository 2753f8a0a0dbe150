"""Where a script may write: its own folder, which is gone when it ends."""

from __future__ import annotations

from pathlib import Path


class LollmsPaths:
    """Every path is the scratch folder of the process."""

    def __getattr__(self, name: str) -> Path:
        if name.startswith("_"):
            raise AttributeError(name)
        path = Path.cwd() / name.removesuffix("_path")
        path.mkdir(exist_ok=True)
        return path
