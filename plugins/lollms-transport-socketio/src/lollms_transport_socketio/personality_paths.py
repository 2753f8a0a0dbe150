"""Which personality a client means by a path: never a file outside the configured folders, and never code."""

from __future__ import annotations

import os
from pathlib import Path

from lollms_kernel.contracts import Kernel, PersonalityCard
from lollms_kernel.errors import Forbidden, NotFound, PersonalityNotFound

from .listings import find_by_place

_FILES = frozenset({"config.yaml", "SOUL.md"})


def find_by_path(kernel: Kernel, path: str) -> PersonalityCard:
    """The loaded personality that `path` names: an id, a name, `[language/]category/folder`, or a path of its folder.

    Raises Forbidden for a path that leads out of the configured folders, PersonalityNotFound for one that leads to no
    loaded personality."""
    wanted = path.strip().replace("\\", "/").rstrip("/")
    if not wanted or "\0" in wanted:
        raise NotFound("The provided path does not exist.", hint="Send the id of a personality as `path`.")
    if Path(wanted).is_absolute():
        return _by_folder(kernel, wanted)
    try:
        return kernel.find_personality(wanted).card
    except PersonalityNotFound:
        pass
    parts = wanted.split("/")
    if ".." in parts:
        raise _outside()
    found = find_by_place(kernel, parts)
    return found if found is not None else _by_folder(kernel, wanted)


def _by_folder(kernel: Kernel, wanted: str) -> PersonalityCard:
    for root in _roots(kernel):
        target = Path(os.path.realpath(root / wanted))  # an absolute path stays what it is
        if target.name in _FILES:
            target = target.parent
        if target.is_relative_to(root) and target != root:
            personality = kernel.personalities.get(target.relative_to(root).as_posix())
            if personality is not None:
                return personality.card
            raise PersonalityNotFound(
                "The provided path does not exist.",
                hint="It has to lead to a personality that the server has loaded; `list_available_personalities` lists"
                " them.",
            )
    raise _outside()


def _roots(kernel: Kernel) -> list[Path]:
    paths = kernel.config.paths
    folders = [paths.personalities_folder, paths.example_personalities_folder]
    return [Path(os.path.realpath(kernel.root / folder)) for folder in folders if folder]


def _outside() -> Forbidden:
    return Forbidden(
        "The provided path leads out of the personality folders.",
        hint="Send the id of a personality, or a path below paths.personalities_folder.",
    )
