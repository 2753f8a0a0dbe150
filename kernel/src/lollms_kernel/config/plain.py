"""What a configuration may consist of: bounded plain values, whatever the format."""

from __future__ import annotations

import datetime
from typing import Any

from ..errors import ConfigError

MAX_DEPTH = 32
MAX_VALUES = 100_000
"""Values in one file, each use of an alias counted in full."""

MAX_NUMBER = 100
"""Characters of a number: Python takes very long for numbers with many digits."""

HINT = "Correct the file at that place."


def bounded(value: Any, where: str) -> Any:
    """The value as plain values: dates become text, as in YAML. Raises ConfigError where it is too large."""
    count = 0

    def plain(value: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if depth > MAX_DEPTH:
            raise ConfigError(f"{where}: nested deeper than {MAX_DEPTH} levels.", hint=HINT)
        if count > MAX_VALUES:
            raise ConfigError(f"{where}: more than {MAX_VALUES:,} values.", hint=HINT)
        if isinstance(value, dict):
            return {key: plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item, depth + 1) for item in value]
        if isinstance(value, datetime.date | datetime.time):
            return value.isoformat()
        if isinstance(value, int) and abs(value) >= 10**MAX_NUMBER:
            raise ConfigError(f"{where}: a very long number.", hint=HINT)
        return value

    return plain(value, 0)
