"""The personalities of a kernel: single ones, and those of sources whose content changes while it runs."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import MappingProxyType

import msgspec

from .config.schema import PersonalityOverride
from .contracts import Kernel, Personality, PersonalityCard, PersonalitySource
from .errors import LollmsError, PersonalityNotFound
from .parameters import normalise

logger = logging.getLogger(__name__)

_NO_CHANGE = PersonalityOverride()


class Personalities:
    """Add what plugins register; later ones replace earlier ones of the same id. `overrides` are the operator's."""

    def __init__(self, overrides: Mapping[str, PersonalityOverride]) -> None:
        self._overrides = overrides
        self._sources: list[PersonalitySource] = []
        self._seen: tuple[Mapping[str, Personality], ...] = ()
        self._index = _Index({})

    def add(self, item: Personality | PersonalitySource) -> None:
        """Take one in, or many."""
        self._sources.append(_Single(item) if isinstance(item, Personality) else item)

    async def open(self, kernel: Kernel, closing: AsyncExitStack) -> None:
        """Open every source; `closing` closes it."""
        for source in self._sources:
            closing.push_async_callback(source.close)
            await source.open(kernel)

    def unusable(self) -> dict[str, str]:
        """Id to what is wrong, of those that cannot be used."""
        return {id: problem for source in self._sources for id, problem in source.unusable().items()}

    def check(self, folder: Path) -> list[str] | None:
        """Everything that is wrong with a folder; None where it holds no personality."""
        answers = [found for source in self._sources if (found := source.check(folder)) is not None]
        return [problem for found in answers for problem in found] if answers else None

    @property
    def current(self) -> Mapping[str, Personality]:
        """Id to personality, the enabled ones as they are now."""
        return MappingProxyType(self._looked_up().by_id)

    def find(self, name: str) -> Personality:
        """By id, name, folder, or name in other letters, in this order; of several the first id. Raises
        PersonalityNotFound."""
        index = self._looked_up()
        found = index.by_id.get(name) or index.by_name.get(name) or index.by_folder.get(name)
        found = found or index.by_folded_name.get(name.casefold())
        if found is None:
            raise PersonalityNotFound(
                f"Personality '{name}' not found or disabled.", hint="`lollms personalities` lists them."
            )
        return found

    def _looked_up(self) -> _Index:
        seen = tuple(source.personalities() for source in self._sources)
        if len(seen) != len(self._seen) or any(
            now is not then for now, then in zip(seen, self._seen, strict=True)
        ):
            merged = {key: personality for mapping in seen for key, personality in mapping.items()}
            self._index = _Index(dict(self._changed(merged)))
            self._seen = seen
        return self._index

    def _changed(self, merged: Mapping[str, Personality]) -> Iterator[tuple[str, Personality]]:
        for key, personality in merged.items():
            override = override_of(personality.card, self._overrides)
            if override is _NO_CHANGE:
                yield key, personality
            elif override.enabled:
                yield key, _with_card(personality, changed_card(personality.card, override))


def override_of(card: PersonalityCard, overrides: Mapping[str, PersonalityOverride]) -> PersonalityOverride:
    """What the operator changes of a personality: by its id, else by its folder's name."""
    return overrides.get(card.id) or overrides.get(card.folder or card.id) or _NO_CHANGE


def changed_card(card: PersonalityCard, override: PersonalityOverride) -> PersonalityCard:
    """The card with the operator's parameters, binding, model and functions; what cannot be used is a problem of it."""
    try:
        own = normalise(override.parameters)
    except LollmsError as error:
        own = {}
        card = msgspec.structs.replace(
            card, problems=(*card.problems, f"personalities_config: {error.detail}")
        )
        logger.warning("personalities_config of '%s': %s The parameters are not used.", card.id, error.detail)
    taken_away = {key for key, value in override.parameters.items() if value is None}
    kept = {key: value for key, value in card.parameters.items() if key not in taken_away}
    return msgspec.structs.replace(
        card,
        parameters={**kept, **own},
        binding=override.binding or card.binding,
        model=override.model or card.model,
        functions=card.functions if override.functions is None else override.functions,
    )


def _with_card(personality: Personality, card: PersonalityCard) -> Personality:
    twin = copy.copy(personality)
    twin.card = card
    return twin


class _Single(PersonalitySource):
    """One personality as a source."""

    def __init__(self, personality: Personality) -> None:
        self._found = {personality.card.id: personality}

    def personalities(self) -> Mapping[str, Personality]:
        return self._found


class _Index:
    def __init__(self, by_id: Mapping[str, Personality]) -> None:
        self.by_id = by_id
        self.by_name: dict[str, Personality] = {}
        self.by_folder: dict[str, Personality] = {}
        self.by_folded_name: dict[str, Personality] = {}
        for _, personality in sorted(by_id.items()):
            card = personality.card
            self.by_name.setdefault(card.name, personality)
            self.by_folder.setdefault(card.folder or card.id, personality)
            self.by_folded_name.setdefault(card.name.casefold(), personality)
