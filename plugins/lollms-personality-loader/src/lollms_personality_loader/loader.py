"""From a folder of personalities to `Personality` objects: find, read, build, and report what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

from lollms_kernel.contracts import Personality
from lollms_kernel.errors import ConfigError

from .card import build_card
from .folders import PersonalityFolder, find_folders
from .formats import read_file

log = logging.getLogger(__name__)


def load_personalities(root: Path, disabled: Collection[str] = ()) -> Iterator[Personality]:
    """Every enabled personality below `root`, in the order of their ids.

    `disabled` holds ids and folder names. One that cannot be used is left out with a warning that names file,
    line and cure.
    """
    for folder in find_folders(root):
        # A disabled folder is not even read: switching it off is the cure when its file is broken.
        if folder.id in disabled or folder.name in disabled:
            continue
        try:
            yield _load(folder)
        except ConfigError as error:
            log.warning("Personality '%s' is left out. %s", folder.id, error.detail)


def _load(folder: PersonalityFolder) -> Personality:
    fields = read_file(folder.file)
    card = build_card(folder, fields)
    for problem in fields.problems:
        log.warning("Personality '%s', %s: %s", folder.id, folder.file, problem)
    if card.is_scripted:
        log.warning(
            "Personality '%s': its script is not run by this version; it works through its conditioning.",
            folder.id,
        )
    return Personality(card)
