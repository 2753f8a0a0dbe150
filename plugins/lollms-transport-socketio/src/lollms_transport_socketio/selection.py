"""Which binding, model and personalities answer: chosen by each socket for itself, or by all of them together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from lollms_kernel.contracts import Kernel, Personality
from lollms_kernel.errors import InvalidRequest, LollmsError, PersonalityNotFound

RAW = -1
"""The personality number that means: no personality, the prompt as it stands."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """A choice. `personalities` are ids; a personality's number is its place there."""

    binding: str | None = None
    """None: the default text binding of the configuration."""
    model: str | None = None
    """None: the binding's own."""
    personalities: tuple[str, ...] = ()
    active: int | None = None
    """The number that `activate_personality` chose, for prompts that name none."""

    def mounted(self, kernel: Kernel) -> list[Personality | None]:
        """The personalities by number; None for one that is there no more, so that the others keep their numbers."""
        return [kernel.personalities.get(name) for name in self.personalities]

    def personality(self, kernel: Kernel, asked: int | str | None) -> str | None:
        """The id of the personality that a prompt asks for by number, id, name or folder; None for a raw prompt.

        Raises InvalidRequest or PersonalityNotFound."""
        number = self.active if asked is None else asked
        if isinstance(number, str) and number.strip().lstrip("-").isdigit():
            number = int(number)
        if number is None or number == RAW:
            return None
        if isinstance(number, str):
            return kernel.find_personality(number).card.id
        return self.at(kernel, number).card.id

    def at(self, kernel: Kernel, number: int) -> Personality:
        """The personality with this number. Raises InvalidRequest or PersonalityNotFound."""
        if not 0 <= number < len(self.personalities):
            raise InvalidRequest(
                "Personality ID not valid",
                hint=f"There {_are(len(self.personalities))}; `add_personality` adds one, {RAW} means none.",
            )
        found = kernel.personalities.get(self.personalities[number])
        if found is None:
            raise PersonalityNotFound(
                f"Personality '{self.personalities[number]}' is there no more.",
                hint="`list_available_personalities` lists what there is.",
            )
        return found


class Selections(Protocol):
    """Where a socket's choice is kept."""

    async def read(self) -> Selection:
        """The choice as it is now."""

    async def change(self, change: Callable[[Selection], Selection]) -> Selection:
        """Choose anew; what is chosen now."""


class OwnSelection:
    """A choice that concerns one socket alone."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    async def read(self) -> Selection:
        """See `Selections.read`."""
        return self.selection

    async def change(self, change: Callable[[Selection], Selection]) -> Selection:
        """See `Selections.change`."""
        self.selection = change(self.selection)
        return self.selection


class SelectionStore(Protocol):
    """Where the common choice is written, for all processes of a deployment."""

    async def load_selection(self) -> Selection | None:
        """What was saved."""

    async def save_selection(self, selection: Selection) -> None:
        """Save it."""


class SharedSelection:
    """One choice for all sockets, of all processes where they share a store."""

    def __init__(self, store: SelectionStore, first: Selection) -> None:
        self._store = store
        self._first = first
        self._changing = asyncio.Lock()

    async def read(self) -> Selection:
        """See `Selections.read`."""
        return await self._store.load_selection() or self._first

    async def change(self, change: Callable[[Selection], Selection]) -> Selection:
        """See `Selections.change`."""
        async with self._changing:
            selection = change(await self.read())
            await self._store.save_selection(selection)
            return selection


def first_selection(kernel: Kernel, names: tuple[str, ...]) -> tuple[Selection, list[str]]:
    """What a new socket starts with, and which of the configured personalities there are not."""
    found, missing = list[str](), list[str]()
    for name in names:
        try:
            found.append(kernel.find_personality(name).card.id)
        except LollmsError:
            missing.append(name)
    return Selection(personalities=tuple(dict.fromkeys(found))), missing


def _are(count: int) -> str:
    return "are none" if count == 0 else "is only 0" if count == 1 else f"are 0 to {count - 1}"
