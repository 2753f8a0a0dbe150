"""`${NAME}` in a text stands for an environment variable; `$${` is a plain `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<broken>\$\{)")


class BadReferenceError(ValueError):
    """A reference that stands for nothing; the text says why and never holds a value."""


def has_reference(text: str) -> bool:
    """Whether the text means something else than it says."""
    return _REFERENCE.search(text) is not None


def is_only_reference(text: str) -> bool:
    """Whether the text is one reference and nothing else, so that it shows no secret itself."""
    match = _REFERENCE.fullmatch(text)
    return match is not None and match["name"] is not None


def expand(text: str, environ: Mapping[str, str]) -> str:
    """The text with the variables' values. Raises BadReferenceError."""

    def value(match: re.Match[str]) -> str:
        if match["broken"]:
            raise BadReferenceError(
                "has a `${` that names no environment variable; for the two characters write `$${`"
            )
        if match["name"] is None:
            return "${"
        try:
            return environ[match["name"]]
        except KeyError:
            raise BadReferenceError(
                f"names the environment variable {match['name']}, which is not set"
            ) from None

    return _REFERENCE.sub(value, text)


def escape(text: str) -> str:
    """The form in which a file has to hold a text that shall be taken as it is."""
    return text.replace("${", "$${")
