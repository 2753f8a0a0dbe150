"""Reads the generation parameters of a request: types and ranges are checked, defaults filled in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import Parameters

from .gguf_header import GgufHeader

MAX_SEED = 2**32 - 2
"""2**32 - 1 means "random" to llama.cpp, as -1 does."""
MAX_STOPS = 64
MAX_STOP_LENGTH = 512
MAX_GRAMMAR = 2**18
MAX_BIAS = 10_000


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen and when to stop; the defaults are llama.cpp's."""

    max_tokens: int = -1
    """-1: until the context is full."""
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    seed: int = -1
    ignore_eos: bool = False
    cache_prompt: bool = True
    stop: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int | str, float], ...] = ()
    """Token id, or text whose every token is meant, and what is added to its logit."""
    grammar: str | None = None
    """GBNF."""
    json_schema: str | None = None


class _Range(msgspec.Struct, frozen=True):
    kind: type[int] | type[float]
    low: float
    high: float
    above: bool = False
    """Whether `low` itself is excluded."""

    def __str__(self) -> str:
        noun = "an integer" if self.kind is int else "a number"
        if self.above:
            return f"{noun} above {self.low} and at most {self.high}"
        return f"{noun} from {self.low} to {self.high}"


_RANGES = {
    "max_tokens": _Range(int, -1, 2**31 - 1),
    "temperature": _Range(float, 0, 100),
    "top_k": _Range(int, -1, 2**31 - 1),
    "top_p": _Range(float, 0, 1),
    "min_p": _Range(float, 0, 1),
    "typical_p": _Range(float, 0, 1),
    "repeat_penalty": _Range(float, 0, 100, above=True),
    "repeat_last_n": _Range(int, -1, 2**31 - 1),
    "presence_penalty": _Range(float, -100, 100),
    "frequency_penalty": _Range(float, -100, 100),
    "mirostat": _Range(int, 0, 2),
    "mirostat_tau": _Range(float, 0, 1000),
    "mirostat_eta": _Range(float, 0, 1000),
    "seed": _Range(int, -1, 2**32 - 1),
}
_FLAGS = ("ignore_eos", "cache_prompt")
_OTHERS = ("n_predict", "stop", "stop_sequences", "logit_bias", "grammar", "json_schema")
_NOT_OURS = ("context_size",)
"""Always sent by the kernel; the size of the context is a setting of the instance here."""

_OF_THE_FILE = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_last_n": "repeat_last_n",
    "general.sampling.penalty_repeat": "repeat_penalty",
    "general.sampling.mirostat": "mirostat",
    "general.sampling.mirostat_tau": "mirostat_tau",
    "general.sampling.mirostat_eta": "mirostat_eta",
}


def model_defaults(header: GgufHeader) -> Parameters:
    """The sampling parameters that a model's maker wrote into its file; values out of range are left out."""
    result: Parameters = {}
    for key, name in _OF_THE_FILE.items():
        try:
            result[name] = _number(name, header.values[key])
        except (KeyError, InvalidRequest):
            continue
    return result


def read_sampling(given: Parameters, defaults: Mapping[str, Any]) -> Sampling:
    """What the request asks for. Raises InvalidRequest naming the parameter, its value and what is allowed."""
    given = {name: value for name, value in given.items() if value is not None}
    values: dict[str, Any] = dict(defaults)
    values.update((name, _number(name, given[name])) for name in _RANGES if name in given)
    if "n_predict" in given:
        values["max_tokens"] = _number("max_tokens", given["n_predict"], "n_predict")
    values.update((name, _flag(name, given[name])) for name in _FLAGS if name in given)
    stop_name = "stop" if "stop" in given else "stop_sequences"
    if stop_name in given:
        values["stop"] = _stops(stop_name, given[stop_name])
    if "logit_bias" in given:
        values["logit_bias"] = _logit_bias(given["logit_bias"])
    if "grammar" in given:
        values["grammar"] = _grammar(given["grammar"]) or None
    if "json_schema" in given:
        values["json_schema"] = _json_schema(given["json_schema"])
    if values.get("grammar") and values.get("json_schema"):
        raise InvalidRequest("Both `grammar` and `json_schema` are given.", hint="Give one of them.")
    return Sampling(**values)


def unknown_parameters(given: Parameters) -> list[str]:
    """Names that have no effect on this binding."""
    known = {*_RANGES, *_FLAGS, *_OTHERS, *_NOT_OURS}
    return sorted(name for name, value in given.items() if value is not None and name not in known)


def _number(name: str, value: Any, shown_as: str | None = None) -> int | float:
    allowed = _RANGES[name]
    if isinstance(value, float) and allowed.kind is int and value.is_integer():
        value = int(value)
    fits = isinstance(value, int if allowed.kind is int else (int, float)) and not isinstance(value, bool)
    if not fits or not (
        allowed.low < value <= allowed.high if allowed.above else allowed.low <= value <= allowed.high
    ):
        raise _wrong(shown_as or name, value, str(allowed))
    return allowed.kind(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "true or false")
    return value


def _stops(name: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    allowed = f"a text or a list of at most {MAX_STOPS} texts, each at most {MAX_STOP_LENGTH} characters long"
    if not isinstance(texts, list | tuple) or len(texts) > MAX_STOPS:
        raise _wrong(name, value, allowed)
    if not all(isinstance(text, str) and len(text) <= MAX_STOP_LENGTH for text in texts):
        raise _wrong(name, value, allowed)
    return tuple(text for text in texts if text)


def _logit_bias(value: Any) -> tuple[tuple[int | str, float], ...]:
    """`{"id or text": bias}` or `[[id or text, bias], …]`; false instead of a number bans the token."""
    pairs = list(value.items()) if isinstance(value, dict) else value
    result: list[tuple[int | str, float]] = []
    allowed = f"an object or a list of pairs: token id or text, and a number up to {MAX_BIAS} or false"
    if not isinstance(pairs, list | tuple) or len(pairs) > 10_000:
        raise _wrong("logit_bias", value, allowed)
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _wrong("logit_bias", pair, allowed)
        token, bias = pair
        if isinstance(token, str) and token.lstrip("-").isdecimal() and isinstance(value, dict):
            token = int(token)
        number = -math.inf if bias is False else bias
        if isinstance(token, bool) or not isinstance(token, int | str):
            raise _wrong("logit_bias", pair, allowed)
        if isinstance(number, bool) or not isinstance(number, int | float) or not number <= MAX_BIAS:
            raise _wrong("logit_bias", pair, allowed)
        result.append((token, float(max(number, -MAX_BIAS)) if bias is not False else number))
    return tuple(result)


def _grammar(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_GRAMMAR:
        raise _wrong("grammar", value, f"a GBNF grammar of at most {MAX_GRAMMAR} characters")
    return value


def _json_schema(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if len(text) > MAX_GRAMMAR:
        raise _wrong("json_schema", text, f"a JSON schema of at most {MAX_GRAMMAR} characters")
    return text


def _wrong(name: str, value: Any, allowed: str) -> InvalidRequest:
    return InvalidRequest(f"parameters.{name} is {str(value)[:80]!r}.", hint=f"It must be {allowed}.")
