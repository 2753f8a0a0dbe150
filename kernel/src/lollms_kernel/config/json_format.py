"""JSON files into plain values and back."""

from __future__ import annotations

import json
from typing import Any, Never

from ..errors import ConfigError
from .describe import shown
from .files import decoded
from .plain import HINT, MAX_NUMBER, bounded


def parse_json(data: bytes, where: str) -> Any:
    """The value of a JSON file, None if it is empty. Raises ConfigError with line and column."""
    text = decoded(data, where)
    if not text.strip():
        return None
    return bounded(load_json(text, where), where)


def load_json(text: str, where: str) -> Any:
    """The value of a JSON text, strictly: each key once, no NaN, no endless numbers."""

    def refuse(constant: str) -> Never:
        raise ConfigError(f"{where}: {constant} is no value of JSON.", hint=HINT)

    def integer(digits: str) -> int:
        if len(digits) > MAX_NUMBER:
            raise ConfigError(f"{where}: a very long number.", hint=HINT)
        return int(digits)

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ConfigError(f"{where}: the key {shown(key)} is there twice.", hint=HINT)
            found[key] = value
        return found

    try:
        return json.loads(text, parse_constant=refuse, parse_int=integer, object_pairs_hook=mapping)
    except json.JSONDecodeError as error:
        place = f"{where}, line {error.lineno}, column {error.colno}"
        raise ConfigError(f"{place}: not valid JSON: {error.msg}.", hint=HINT) from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply.", hint=HINT) from None


def write_json(values: dict[str, Any]) -> bytes:
    """The text of a new JSON file. Raises ConfigError for numbers that JSON does not know."""
    try:
        return (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except ValueError as error:
        raise ConfigError(f"JSON cannot hold these values: {error}.", hint="Use YAML or TOML.") from None
