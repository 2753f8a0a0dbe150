"""The folders that the configuration names: there, writable, with room for models."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .findings import Finding
from .machine import GIB

if TYPE_CHECKING:
    from ..config.load import LoadedConfig

FOLDERS = ("models_folder", "personalities_folder", "functions_folder")
LITTLE_DISK = 5 * GIB


def examine_folders(loaded: LoadedConfig) -> Iterator[Finding]:
    """Whether each folder can be used, and the space for models."""
    for name in FOLDERS:
        yield _folder(name, loaded.path(name))
    yield _space(loaded.path("models_folder"))


def _folder(name: str, folder: Path) -> Finding:
    title = f"paths.{name}"
    present = _nearest(folder)
    if present != folder:
        if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
            cure = f"Create it as a user who may, or set {title} to another folder."
            return Finding(
                "error", title, f"{folder} does not exist and cannot be created in {present}", cure
            )
        return Finding("ok", title, f"{folder} (will be created)")
    if not folder.is_dir():
        return Finding(
            "error", title, f"{folder} is not a folder", f"Move the file away or set {title} to a folder."
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        return Finding(
            "error", title, f"{folder} cannot be read", f"Give yourself the right: `chmod u+rx {folder}`."
        )
    if not os.access(folder, os.W_OK):
        cure = "That is enough to serve; to add something, write there as its owner."
        return Finding("warning", title, f"{folder} cannot be written", cure)
    return Finding("ok", title, str(folder))


def _space(folder: Path) -> Finding:
    free = shutil.disk_usage(_nearest(folder)).free
    text = f"{free / GIB:.1f} GiB free for models"
    if free < LITTLE_DISK:
        cure = "Most models take 1 to 10 GiB: free some space or set paths.models_folder to another disk."
        return Finding("warning", "disk", text, cure)
    return Finding("ok", "disk", text)


def _nearest(path: Path) -> Path:
    """The path itself or the nearest of its parents that exists."""
    return next(
        (candidate for candidate in (path, *path.parents) if candidate.exists()), Path(path.anchor or ".")
    )
