"""What the texts of a file mean: encrypted ones decrypted, `${NAME}` replaced by environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .encryption import Keys, UndecryptableError, is_encrypted
from .faults import Fault
from .places import Place
from .references import BadReferenceError, expand, has_reference, is_only_reference

MASK = "***"


class Concealed(str):
    """A text that the file does not hold in clear: errors and listings show `shown` instead.

    Where a number or a truth value belongs, its text is as good, since a variable holds nothing but text.
    """

    shown: str

    def __new__(cls, text: str, shown: str) -> Concealed:
        """The text, and what may be shown of it."""
        self = super().__new__(cls, text)
        self.shown = shown
        return self


class Unknown(Concealed):
    """A text whose meaning cannot be found here, e.g. for want of the variable; it passes for anything."""


def resolve(
    values: Any, keys: Keys, environ: Mapping[str, str], *, lenient: bool = False
) -> tuple[Any, list[Fault]]:
    """The values with every text resolved to a `Concealed` one where it means something else than it says.

    What cannot be resolved becomes `Unknown` and is reported, unless `lenient`: an edit must be possible where the
    server's environment is not.
    """
    faults: list[Fault] = []

    def walk(value: Any, place: Place) -> Any:
        if isinstance(value, Mapping):
            return {key: walk(item, (*place, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*place, index)) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            return meaning(value, keys, environ)
        except (UndecryptableError, BadReferenceError) as error:
            if not lenient:
                faults.append(Fault(place, f"{error}."))
            return Unknown(value, MASK)

    return walk(values, ()), faults


def meaning(text: str, keys: Keys, environ: Mapping[str, str]) -> str:
    """What one text of a file means. Raises UndecryptableError or BadReferenceError."""
    if is_encrypted(text):
        return Concealed(keys.decrypt(text), MASK)
    if not has_reference(text):
        return text
    return Concealed(expand(text, environ), shown_reference(text))


def shown_reference(text: str) -> str:
    """What may be shown of a text with references: a bare one tells where to look, a mixed one may hold a secret."""
    return text if is_only_reference(text) else MASK


def revealed(value: Any) -> Any:
    """The value with plain texts in place of concealed ones, for code that asks for exactly `str`."""
    if isinstance(value, Mapping):
        return {key: revealed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [revealed(item) for item in value]
    return str(value) if isinstance(value, Concealed) else value
