"""The library of a configuration: which folders it has, and in which order they override each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .library import OWN, Library, Root

if TYPE_CHECKING:
    from lollms_kernel.config.schema import MainConfig


def build_library(config: MainConfig) -> Library:
    """Our own personalities, then the examples of an installation, then the user's."""
    folders = (config.paths.example_personalities_folder, config.paths.personalities_folder)
    roots = [Root(OWN, trusted=True), *(Root(Path(folder)) for folder in folders if folder is not None)]
    library = Library(config, roots)
    library.look()
    return library
