"""Values of scripts as plain ones that can travel: models, enums, paths, dates and whatever else become data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 32
_SCALARS = (str, int, float, bool, type(None))
_MAX_INTEGER = 2**63


def plain(value: Any, depth: int = 0) -> Any:
    """The value made of None, truth values, numbers, text, bytes, lists and mappings with text as keys."""
    if depth > MAX_DEPTH:
        return str(value)[:200]
    if isinstance(value, enum.Enum):
        return plain(value.value, depth + 1)
    if type(value) is int and not -_MAX_INTEGER <= value < _MAX_INTEGER:
        return str(value)
    if type(value) is str:
        return value.encode(errors="replace").decode()  # lone surrogates cannot travel
    if type(value) in _SCALARS:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    for method in ("model_dump", "dict", "to_dict"):
        dump = getattr(value, method, None)
        if callable(dump) and not isinstance(value, type):
            return plain(dump(), depth + 1)
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)
