"""Brings generation parameters to one set of names and checks the types that every binding relies on."""

from __future__ import annotations

import math
from typing import Any

from .errors import InvalidRequest
from .types import Parameters

MAX_INTEGER = 2**63
ENDLESS = -1
"""As `max_tokens`: until the context is full, for bindings that understand it; the default for all others."""

ALIASES = {"n_predict": "max_tokens", "n_predicts": "max_tokens", "max_new_tokens": "max_tokens"}
_NUMBERS = frozenset(
    "temperature top_p min_p typical_p repeat_penalty presence_penalty frequency_penalty strength "
    "guidance_scale controlnet_scale mirostat_tau mirostat_eta".split()
)
_INTEGERS = frozenset(
    "max_tokens context_size top_k repeat_last_n seed width height num_inference_steps n mirostat".split()
)


def normalise(parameters: Parameters) -> Parameters:
    """The same parameters under their one name: `n_predict` → `max_tokens`, `stop` and `stop_sequences` → a `stop`
    list. Nulls are dropped. Raises InvalidRequest naming parameter and value where a type is wrong."""
    result: Parameters = {}
    stops: list[str] = []
    for key, value in parameters.items():
        if value is None:
            continue
        if key in ("stop", "stop_sequences"):
            stops += _stop_list(key, value)
            continue
        name = ALIASES.get(key, key)
        if name != key and name in parameters:
            continue  # the proper name wins over its alias
        result[name] = _checked(key, name, value)
    if "max_tokens" in result and result["max_tokens"] < 1 and result["max_tokens"] != ENDLESS:
        raise _wrong("max_tokens", result["max_tokens"], "a positive integer")
    if stops:
        result["stop"] = list(dict.fromkeys(stops))
    return result


def _checked(key: str, name: str, value: Any) -> Any:
    if name in _INTEGERS and isinstance(value, float) and value.is_integer():
        value = int(value)
    if name in _INTEGERS and not _is_number(value, int):
        raise _wrong(key, value, "an integer")
    if name in _NUMBERS and not _is_number(value, int | float):
        raise _wrong(key, value, "a number")
    return value


def _is_number(value: Any, kind: Any) -> bool:
    """Whether it is a number that every engine and wire format can hold: finite, of 64 bits at most."""
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return math.isfinite(value) if isinstance(value, float) else -MAX_INTEGER <= value < MAX_INTEGER


def _stop_list(key: str, value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise _wrong(key, value, "a string or a list of strings")
    return [item for item in values if item]


def _wrong(key: str, value: Any, allowed: str) -> InvalidRequest:
    return InvalidRequest(f"parameters.{key} is {str(value)[:80]!r}.", hint=f"It must be {allowed}.")
