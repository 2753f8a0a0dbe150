"""Secrets that this process knows, kept out of errors and logs whoever words these.

A service may repeat the key that it refuses, and an exception the settings that it was raised over. Nobody can foresee
where, so what reads a secret from a file remembers it here, and every `LollmsError` and every line of the log passes
by.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

from .. import errors
from .api_keys import is_hash
from .resolve import MASK

SHORTEST = 6
"""Characters of the shortest secret that is looked for: a shorter one would hide half of every sentence."""

_known: set[str] = set()
_pattern: re.Pattern[str] | None = None


def remember(secrets: Iterable[Any]) -> None:
    """Keep these texts out of errors and logs from now on."""
    global _pattern
    texts = {str(secret) for secret in secrets}
    fresh = {text for text in texts if len(text) >= SHORTEST and not is_hash(text)} - _known
    if fresh:
        _known.update(fresh)
        forms = {form for text in _known for form in (text, json.dumps(text)[1:-1], repr(text)[1:-1])}
        # longer ones first: one secret may begin with another
        _pattern = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))


def without_secrets(text: str) -> str:
    """The text with `***` in place of every secret that is known."""
    return text if _pattern is None else _pattern.sub(MASK, text)


def guard_logs() -> None:
    """Let what the handlers of the root logger write, tracebacks included, pass by here."""
    for handler in logging.getLogger().handlers:
        if "format" not in vars(handler):
            vars(handler)["format"] = _concealing(handler.format)


def _concealing(write: Callable[[logging.LogRecord], str]) -> Callable[[logging.LogRecord], str]:
    return lambda record: without_secrets(write(record))


errors.conceal_with(without_secrets)
