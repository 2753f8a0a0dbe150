"""From preset and answers to a draft of the files; nothing is asked, looked up or written here."""

from __future__ import annotations

from typing import Any

import msgspec

from ..config.api_keys import hashed
from ..drafts import Draft
from .presets import Part, Preset

_FIRST = ("paths", "security", "server")
"""Sections that say where instance files lie and how they are encrypted."""

KEYS = "security.allowed_api_keys"


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants."""

    preset: Preset | None = None
    main: dict[str, Any] = {}
    """Paths and values of the main configuration."""
    instances: dict[str, dict[str, Any]] = {}
    """Settings of the preset's instances, beside or instead of its own."""
    encryption_key: str | None = None
    """Put it into the configuration, to encrypt what is secret."""
    api_key: str | None = None
    """A new key that clients shall send; only its hash is kept, unless secrets are encrypted."""
    start_over: bool = False
    """Take everything away that was configured before."""

    def __repr__(self) -> str:
        """Without values: they hold secrets."""
        return f"Answers(preset={self.preset.name if self.preset else None!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich's tracebacks, which do not ask `__repr__`."""
        return [("preset", self.preset and self.preset.name)]


def fill(draft: Draft, answers: Answers) -> None:
    """Put the answers into a draft. Raises ConfigError for what cannot be."""
    if answers.start_over:
        for name in list(draft.instances):
            draft.remove(name)
        draft.main.become({})
    if answers.encryption_key is not None:
        draft.main.set("security.encryption_key", answers.encryption_key)
    early = {path: value for path, value in answers.main.items() if path.partition(".")[0] in _FIRST}
    for path, value in early.items():
        draft.main.set(path, value)
    if answers.preset is not None:
        _place_preset(draft, answers.preset, answers)
    for path, value in answers.main.items():
        if path not in early:
            draft.main.set(path, value)
    if answers.api_key is not None:
        _add_key(draft, answers.api_key)


def _place_preset(draft: Draft, preset: Preset, answers: Answers) -> None:
    for part in preset.parts:
        wanted = settings_of(part, answers)
        if draft.instances.get(part.name) == part.type:
            draft.edit(part.name, wanted)  # what else its file says stays
        else:
            draft.place(part.name, part.type, wanted)
        draft.make_default(part.name, part.kind)
    draft.main.set("resource_manager.gpu_strategy", preset.gpu_strategy)
    if preset.gpu_strategy == "semaphore":
        draft.main.set("resource_manager.gpu_limit", 1)


def settings_of(part: Part, answers: Answers) -> dict[str, Any]:
    """The settings of a preset's instance as the answers have them."""
    return {**part.settings, **answers.instances.get(part.name, {})}


def _add_key(draft: Draft, key: str) -> None:
    try:
        present = list(draft.main.get(KEYS) or [])
    except KeyError:
        present = []
    names = {entry["name"] for entry in present if isinstance(entry, dict) and "name" in entry}
    name = next(
        one for one in ("admin", *(f"admin-{n}" for n in range(2, len(names) + 3))) if one not in names
    )
    form = {"key": key} if draft.main.keys else {"hash": hashed(key)}
    draft.main.set(KEYS, [*present, {"name": name, **form}])
