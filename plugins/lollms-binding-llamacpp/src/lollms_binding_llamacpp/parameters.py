"""Reads the generation parameters of a request: types are checked, ranges clamped or refused, defaults filled in.

Names, defaults and what is clamped silently are llama-server's; what no engine could do is refused.
"""

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
MAX_TRIGGERS = 64
MAX_PROBABILITIES = 1000
MAX_INT = 2**31 - 1
MAX_FLOAT = 1e30

SAMPLERS = ("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")
"""llama.cpp's order; the draw comes last."""
OTHER_SAMPLERS = ("infill", "adaptive_p")
_SAMPLER_LETTERS = {
    "d": "dry",
    "k": "top_k",
    "y": "typ_p",
    "p": "top_p",
    "s": "top_n_sigma",
    "m": "min_p",
    "t": "temperature",
    "x": "xtc",
    "i": "infill",
    "e": "penalties",
    "a": "adaptive_p",
}
_SAMPLER_ALIASES = {
    "temp": "temperature",
    "nucleus": "top_p",
    "typical_p": "typ_p",
    "typical": "typ_p",
    "typ": "typ_p",
}


class Trigger(msgspec.Struct, frozen=True):
    """What makes a lazy grammar begin: a text, a pattern (searched or for the whole answer), or a token."""

    kind: str
    """`word`, `pattern`, `pattern_full` or `token`."""
    value: str = ""
    token: int = -1


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen and when to stop; the defaults are llama.cpp's."""

    max_tokens: int = -1
    """-1: until the context is full."""
    temperature: float = 0.8
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    top_n_sigma: float = -1.0
    typical_p: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    """-1: the whole context."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    """-1: the whole context."""
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0
    adaptive_decay: float = 0.9
    min_keep: int = 0
    samplers: tuple[str, ...] = SAMPLERS
    seed: int = -1
    n_probs: int = 0
    post_sampling_probs: bool = False
    ignore_eos: bool = False
    cache_prompt: bool = True
    n_keep: int = 0
    n_discard: int = 0
    n_indent: int = 0
    n_cache_reuse: int = 0
    t_max_predict_ms: int = -1
    id_slot: int = -1
    return_progress: bool = False
    timings_per_token: bool = False
    stop: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int | str, float], ...] = ()
    """Token id, or text whose every token is meant, and what is added to its logit."""
    grammar: str | None = None
    """GBNF."""
    json_schema: str | None = None
    grammar_lazy: bool = False
    grammar_triggers: tuple[Trigger, ...] = ()
    preserved_tokens: tuple[int | str, ...] = ()
    lora: tuple[tuple[int, float], ...] | None = None
    """(id, scale) of each LoRA adapter; None: as the instance has them."""


class _Range(msgspec.Struct, frozen=True):
    kind: type[int] | type[float]
    low: float
    high: float
    above: bool = False
    """Whether `low` itself is excluded."""
    clamped: bool = False
    """Whether values outside become the nearest one inside, as llama-server does it."""

    def __str__(self) -> str:
        noun = "an integer" if self.kind is int else "a number"
        if self.above:
            return f"{noun} above {self.low} and at most {self.high}"
        return f"{noun} from {self.low} to {self.high}"


_RANGES = {
    "max_tokens": _Range(int, -1, MAX_INT),
    "temperature": _Range(float, 0, MAX_FLOAT, clamped=True),
    "dynatemp_range": _Range(float, -MAX_FLOAT, MAX_FLOAT),
    "dynatemp_exponent": _Range(float, -MAX_FLOAT, MAX_FLOAT),
    "top_k": _Range(int, 0, MAX_INT, clamped=True),
    "top_p": _Range(float, 0, 1, clamped=True),
    "min_p": _Range(float, 0, 1, clamped=True),
    "top_n_sigma": _Range(float, -MAX_FLOAT, MAX_FLOAT),
    "typical_p": _Range(float, -MAX_FLOAT, MAX_FLOAT),
    "xtc_probability": _Range(float, 0, 1, clamped=True),
    "xtc_threshold": _Range(float, 0, 1, clamped=True),
    "repeat_penalty": _Range(float, 1e-30, MAX_FLOAT),
    "repeat_last_n": _Range(int, -1, MAX_INT),
    "presence_penalty": _Range(float, -MAX_FLOAT, MAX_FLOAT),
    "frequency_penalty": _Range(float, -MAX_FLOAT, MAX_FLOAT),
    "dry_multiplier": _Range(float, -MAX_FLOAT, MAX_FLOAT),
    "dry_base": _Range(float, -MAX_FLOAT, MAX_FLOAT),
    "dry_allowed_length": _Range(int, 0, MAX_INT),
    "dry_penalty_last_n": _Range(int, -1, MAX_INT),
    "mirostat": _Range(int, 0, 2, clamped=True),
    "mirostat_tau": _Range(float, -MAX_FLOAT, MAX_FLOAT),
    "mirostat_eta": _Range(float, -MAX_FLOAT, MAX_FLOAT),
    "adaptive_target": _Range(float, -MAX_FLOAT, 1, clamped=True),
    "adaptive_decay": _Range(float, 0, 0.99),
    "min_keep": _Range(int, 0, MAX_INT),
    "seed": _Range(int, -1, 2**32 - 1),
    "n_probs": _Range(int, 0, MAX_PROBABILITIES, clamped=True),
    "n_keep": _Range(int, -1, MAX_INT),
    "n_discard": _Range(int, 0, MAX_INT),
    "n_indent": _Range(int, 0, MAX_INT),
    "n_cache_reuse": _Range(int, 0, MAX_INT),
    "t_max_predict_ms": _Range(int, -1, 2**63 - 1),
    "id_slot": _Range(int, -1, MAX_INT),
}
_FLAGS = (
    "ignore_eos",
    "cache_prompt",
    "post_sampling_probs",
    "return_progress",
    "timings_per_token",
    "grammar_lazy",
)
_OTHERS = (
    "n_predict",
    "logprobs",
    "stop",
    "stop_sequences",
    "logit_bias",
    "grammar",
    "json_schema",
    "response_format",
    "dry_sequence_breakers",
    "samplers",
    "grammar_triggers",
    "preserved_tokens",
    "lora",
    "tool_choice",
    "parallel_tool_calls",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "reasoning_format",
)
_NOT_OURS = (
    "context_size n n_cmpl stream stream_options return_tokens response_fields verbose sse_ping_interval top_logprobs"
).split()
"""Sent by the kernel or meant for a transport; the size of the context is a setting of the instance here."""

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
        allowed = _RANGES[name]
        value = header.values.get(key)
        if isinstance(value, int | float) and allowed.low <= value <= allowed.high:
            result[name] = allowed.kind(value)
    return result


def read_sampling(given: Parameters, defaults: Mapping[str, Any]) -> Sampling:
    """What the request asks for. Raises InvalidRequest naming the parameter, its value and what is allowed."""
    given = {name: value for name, value in given.items() if value is not None}
    values: dict[str, Any] = dict(defaults)
    values.update((name, _number(name, given[name])) for name in _RANGES if name in given)
    if "n_predict" in given:
        values["max_tokens"] = _number("max_tokens", given["n_predict"], "n_predict")
    if "logprobs" in given and "n_probs" not in given and not isinstance(given["logprobs"], bool):
        values["n_probs"] = _number("n_probs", given["logprobs"], "logprobs")
    values.update((name, _flag(name, given[name])) for name in _FLAGS if name in given)
    if values.get("dry_base", 1.75) < 1:
        values["dry_base"] = defaults.get("dry_base", 1.75)
    stop_name = "stop" if "stop" in given else "stop_sequences"
    if stop_name in given:
        values["stop"] = _stops(stop_name, given[stop_name])
    for name, read in _READERS.items():
        if name in given:
            values[name] = read(given[name])
    if "response_format" in given:
        values.update(_response_format(given["response_format"], values))
    if values.get("grammar") and values.get("json_schema"):
        raise InvalidRequest("Both `grammar` and `json_schema` are given.", hint="Give one of them.")
    if values.get("grammar_lazy") and values.get("grammar") and not values.get("grammar_triggers"):
        raise InvalidRequest(
            "parameters.grammar_lazy is set without any trigger.", hint="Give `grammar_triggers`."
        )
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
    if not fits or not _is_finite(value):
        raise _wrong(shown_as or name, value, str(allowed))
    if allowed.clamped:
        return allowed.kind(min(max(value, allowed.low), allowed.high))
    if not (allowed.low < value <= allowed.high if allowed.above else allowed.low <= value <= allowed.high):
        raise _wrong(shown_as or name, value, str(allowed))
    return allowed.kind(value)


def _is_finite(value: int | float) -> bool:
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= 2**64


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
            token = int(token) if len(token) < 20 else -1
        number = -math.inf if bias is False else bias
        if isinstance(token, bool) or not isinstance(token, int | str):
            raise _wrong("logit_bias", pair, allowed)
        if isinstance(number, bool) or not isinstance(number, int | float) or not number <= MAX_BIAS:
            raise _wrong("logit_bias", pair, allowed)
        result.append((token, float(max(number, -MAX_BIAS)) if bias is not False else number))
    return tuple(result)


def _grammar(value: Any) -> str | None:
    if not isinstance(value, str) or len(value) > MAX_GRAMMAR:
        raise _wrong("grammar", value, f"a GBNF grammar of at most {MAX_GRAMMAR} characters")
    return value or None


def _json_schema(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    except RecursionError:
        raise _wrong("json_schema", "too deep", "a JSON schema that is not nested so deeply") from None
    if len(text) > MAX_GRAMMAR:
        raise _wrong("json_schema", text, f"a JSON schema of at most {MAX_GRAMMAR} characters")
    return text


def _response_format(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's way to ask for JSON, as a schema."""
    allowed = "an object whose `type` is text, json_object or json_schema"
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        schema = value.get("schema")
    elif kind == "json_schema":
        inner = value.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else value.get("schema")
        if schema is None:
            raise _wrong("response_format", value, "of type json_schema with a `json_schema.schema`")
    else:
        raise _wrong("response_format", value, allowed)
    if values.get("grammar") or values.get("json_schema"):
        raise InvalidRequest(
            "Both `response_format` and a grammar or schema are given.", hint="Give one of them."
        )
    return {"json_schema": _json_schema(schema or {"type": "object"})}


def _breakers(value: Any) -> tuple[str, ...]:
    allowed = f"a non-empty list of at most {MAX_STOPS} texts"
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_STOPS:
        raise _wrong("dry_sequence_breakers", value, allowed)
    if not all(isinstance(text, str) and len(text) <= MAX_STOP_LENGTH and "\0" not in text for text in value):
        raise _wrong("dry_sequence_breakers", value, allowed)
    return tuple(value)


def _samplers(value: Any) -> tuple[str, ...]:
    """Names or letters; unknown ones are passed over, as llama-server does it."""
    if isinstance(value, str):
        names = [_SAMPLER_LETTERS.get(letter, "") for letter in value[:64]]
    elif isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        plain = [name.strip().lower().replace("-", "_") for name in value[:64]]
        names = [_SAMPLER_ALIASES.get(name, name) for name in plain]
    else:
        raise _wrong("samplers", value, "a list of sampler names, or a text of their letters")
    return tuple(name for name in names if name in SAMPLERS or name in OTHER_SAMPLERS)


_TRIGGER_KINDS = {0: "token", 1: "word", 2: "pattern", 3: "pattern_full"}


def _triggers(value: Any) -> tuple[Trigger, ...]:
    allowed = f"a list of at most {MAX_TRIGGERS} objects with `type` and `value`, or texts"
    if not isinstance(value, list | tuple) or len(value) > MAX_TRIGGERS:
        raise _wrong("grammar_triggers", value, allowed)
    result = []
    for entry in value:
        if isinstance(entry, str):
            entry = {"type": "word", "value": entry}
        if not isinstance(entry, dict):
            raise _wrong("grammar_triggers", entry, allowed)
        kind = entry.get("type")
        kind = _TRIGGER_KINDS.get(kind, "") if isinstance(kind, int) else str(kind)
        text, token = entry.get("value", ""), entry.get("token", -1)
        if (
            kind not in _TRIGGER_KINDS.values()
            or not isinstance(text, str)
            or not isinstance(token, int)
            or len(text) > MAX_STOP_LENGTH
            or "\0" in text
            or not (text or kind == "token")
        ):
            raise _wrong("grammar_triggers", entry, allowed)
        result.append(Trigger(kind, text, token))
    return tuple(result)


def _preserved(value: Any) -> tuple[int | str, ...]:
    if not isinstance(value, list | tuple) or len(value) > 1000:
        raise _wrong("preserved_tokens", value, "a list of at most 1000 texts")
    if not all(isinstance(entry, int | str) and not isinstance(entry, bool) for entry in value):
        raise _wrong("preserved_tokens", value, "a list of texts")
    return tuple(value)


def _lora(value: Any) -> tuple[tuple[int, float], ...]:
    allowed = "a list of objects with `id` and `scale`"
    if not isinstance(value, list | tuple) or len(value) > 64:
        raise _wrong("lora", value, allowed)
    result: dict[int, float] = {}
    for entry in value:
        if not isinstance(entry, dict):
            raise _wrong("lora", entry, allowed)
        number, scale = entry.get("id"), entry.get("scale")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MAX_INT:
            raise _wrong("lora", entry, allowed)
        if not isinstance(scale, int | float) or isinstance(scale, bool) or not abs(scale) <= 1e6:
            raise _wrong("lora", entry, allowed)
        result[number] = float(scale)
    return tuple(sorted(result.items()))


_READERS: dict[str, Any] = {
    "logit_bias": _logit_bias,
    "grammar": _grammar,
    "json_schema": _json_schema,
    "dry_sequence_breakers": _breakers,
    "samplers": _samplers,
    "grammar_triggers": _triggers,
    "preserved_tokens": _preserved,
    "lora": _lora,
}


def _wrong(name: str, value: Any, allowed: str) -> InvalidRequest:
    return InvalidRequest(f"parameters.{name} is {str(value)[:80]!r}.", hint=f"It must be {allowed}.")
