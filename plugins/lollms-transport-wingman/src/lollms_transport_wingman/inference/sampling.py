"""The fields of a completion that say how to generate: read, checked, clamped, and shown again in answers.

Names and defaults are llama-server's. Only what the client gives goes to the binding, so that defaults of the model
and of the instance stay in force; `echo` fills the rest with llama-server's own defaults, for bindings that do not
tell what they used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import Parameters

from .constraints import check_grammar, check_schema, check_triggers
from .fields import INT32, Fields, as_integer, as_number, wrong

RANDOM_SEED = 2**32 - 1
SAMPLERS = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typ_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
_SAMPLER_NAMES = frozenset(
    (*SAMPLERS, "typical_p", "infill", "adaptive_p", "top-k", "top-p", "min-p", "typ-p")
)
_SAMPLER_LETTERS = frozenset("edskypmxtia")
MAX_STOPS, MAX_STOP_LENGTH = 64, 512
MAX_BIASES = 100_000
MAX_BREAKERS = 64


class _Integer(msgspec.Struct, frozen=True):
    default: int
    low: int = -INT32
    high: int = INT32
    clamp: bool = False
    """Whether values below `low` become `low`."""


class _Number(msgspec.Struct, frozen=True):
    default: float
    low: float = -1e9
    high: float = 1e9
    clamp: bool = False
    """Whether values out of range become the nearest bound."""


class _Flag(msgspec.Struct, frozen=True):
    default: bool


_SIMPLE: dict[str, _Integer | _Number | _Flag] = {
    "temperature": _Number(0.8, 0, 1e6, clamp=True),
    "dynatemp_range": _Number(0.0, 0, 1e6, clamp=True),
    "dynatemp_exponent": _Number(1.0),
    "top_k": _Integer(40, 0, clamp=True),
    "top_p": _Number(0.95, 0, 1, clamp=True),
    "min_p": _Number(0.05, 0, 1, clamp=True),
    "top_n_sigma": _Number(-1.0),
    "xtc_probability": _Number(0.0, 0, 1, clamp=True),
    "xtc_threshold": _Number(0.1, 0, 1, clamp=True),
    "typical_p": _Number(1.0, 0, 1, clamp=True),
    "repeat_last_n": _Integer(64, -1),
    "repeat_penalty": _Number(1.0, 0, 1e6, clamp=True),
    "presence_penalty": _Number(0.0),
    "frequency_penalty": _Number(0.0),
    "dry_multiplier": _Number(0.0, 0, 1e6, clamp=True),
    "dry_base": _Number(1.75, 0, 1e6, clamp=True),
    "dry_allowed_length": _Integer(2, 0, clamp=True),
    "dry_penalty_last_n": _Integer(64, -1),
    "mirostat": _Integer(0, 0, 2, clamp=True),
    "mirostat_tau": _Number(5.0, 0, 1e6, clamp=True),
    "mirostat_eta": _Number(0.1, 0, 1e6, clamp=True),
    "adaptive_target": _Number(-1.0),
    "adaptive_decay": _Number(0.9, 0, 0.99, clamp=True),
    "n_keep": _Integer(0, -1),
    "n_discard": _Integer(0, 0, clamp=True),
    "n_indent": _Integer(0, 0, clamp=True),
    "n_cache_reuse": _Integer(0, 0, clamp=True),
    "t_max_predict_ms": _Integer(-1, -1),
    "min_keep": _Integer(0, 0, clamp=True),
    "id_slot": _Integer(-1, -1),
    "ignore_eos": _Flag(False),
    "cache_prompt": _Flag(True),
    "post_sampling_probs": _Flag(False),
    "return_progress": _Flag(False),
}
"""Fields that are one number or truth value, in the order in which answers show them."""

_SHOWN_ELSEWHERE = ("id_slot", "cache_prompt", "return_progress")


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How to generate one answer."""

    parameters: Parameters
    """What the client gave, as the binding gets it."""
    limit: int | None
    """The longest answer in tokens that the client asks for; -1: no limit."""
    n_probs: int
    timings_per_token: bool
    return_tokens: bool
    stream: bool

    def seeded(self, number: int) -> Parameters:
        """The parameters of answer `number` of several to the same prompt."""
        seed = self.parameters.get("seed")
        if number == 0 or seed is None or seed in (-1, RANDOM_SEED):
            return self.parameters
        return {**self.parameters, "seed": (seed + number) % RANDOM_SEED}

    def echo(self) -> dict[str, Any]:
        """llama-server's `generation_settings`: every field with the value that it was given, or its default."""
        given = self.parameters
        shown: dict[str, Any] = {"seed": _shown_seed(given.get("seed"))}
        shown |= {
            name: given.get(name, field.default)
            for name, field in _SIMPLE.items()
            if name not in _SHOWN_ELSEWHERE
        }
        limit = -1 if self.limit is None else self.limit
        return shown | {
            "dry_sequence_breakers": given.get("dry_sequence_breakers", ["\n", ":", '"', "*"]),
            "stop": given.get("stop", []),
            "max_tokens": limit,
            "n_predict": limit,
            "stream": self.stream,
            "logit_bias": [
                {"bias": None if bias is False else bias, "token": token}
                for token, bias in _pairs(given.get("logit_bias", []))
            ],
            "n_probs": self.n_probs,
            "grammar": given.get("grammar", ""),
            "grammar_lazy": given.get("grammar_lazy", False),
            "grammar_triggers": given.get("grammar_triggers", []),
            "preserved_tokens": given.get("preserved_tokens", []),
            "samplers": given.get("samplers", list(SAMPLERS)),
            "timings_per_token": self.timings_per_token,
            "lora": given.get("lora", []),
        }


def read_sampling(fields: Fields) -> Sampling:
    """What a body asks for. Raises InvalidRequest that names the field, its value and what is allowed."""
    parameters = {name: _simple(name, fields) for name in _SIMPLE if name in fields}
    for name, read in _OTHERS.items():
        if name in fields:
            parameters[name] = read(name, fields)
    if not parameters.get("grammar", ""):
        parameters.pop("grammar", None)
    elif "json_schema" in parameters:
        del parameters["json_schema"]  # llama-server prefers the grammar
    if parameters.get("dry_base", 1.0) < 1.0:
        parameters["dry_base"] = 1.75
    limit = _limit(fields)
    if limit is not None:
        parameters["max_tokens"] = limit or 1  # llama-server answers 0 with one token, too
    n_probs = _n_probs(fields)
    if n_probs:
        parameters["n_probs"] = n_probs
    return Sampling(
        parameters=parameters,
        limit=limit,
        n_probs=n_probs,
        timings_per_token=fields.flag("timings_per_token"),
        return_tokens=fields.flag("return_tokens"),
        stream=fields.flag("stream"),
    )


def _simple(name: str, fields: Fields) -> int | float | bool:
    field, value = _SIMPLE[name], fields.get(name)
    if isinstance(field, _Flag):
        return fields.flag(name)
    if isinstance(field, _Number):
        number = as_number(name, value, -1e30, 1e30)
        if field.clamp:
            return min(max(number, field.low), field.high)
        return as_number(name, number, field.low, field.high)
    if field.clamp:
        whole = as_integer(name, value, -INT32, INT32)
        return min(max(whole, field.low), field.high)
    return as_integer(name, value, field.low, field.high)


def _limit(fields: Fields) -> int | None:
    for name in ("n_predict", "max_completion_tokens", "max_tokens"):
        if name in fields:
            return fields.integer(name, -1)
    return None


def _n_probs(fields: Fields) -> int:
    if "n_probs" in fields:
        return fields.integer("n_probs", 0, 1 << 20) or 0
    value = fields.get("logprobs")
    if value is None or isinstance(value, bool):  # a truth value belongs to chats, which read it themselves
        return 0
    return as_integer("logprobs", value, 0, 1 << 20)


def _seed(name: str, fields: Fields) -> int:
    seed = as_integer(name, fields.get(name), -(2**63), 2**63 - 1)
    if seed < 0 or seed == RANDOM_SEED:
        return -1
    return seed % RANDOM_SEED if seed > RANDOM_SEED else seed  # OpenAI's seeds have 64 bits, llama.cpp's 32


def _shown_seed(seed: int | None) -> int:
    return RANDOM_SEED if seed is None or seed < 0 else seed


def _stop(name: str, fields: Fields) -> list[str]:
    return [text for text in fields.texts(name, MAX_STOPS, MAX_STOP_LENGTH) or [] if text]


def _breakers(name: str, fields: Fields) -> list[str]:
    breakers = fields.get(name)
    if not isinstance(breakers, list) or not breakers or not all(isinstance(item, str) for item in breakers):
        raise wrong(name, "a non-empty array of strings", breakers)
    return fields.texts(name, MAX_BREAKERS, 128) or []


def _samplers(name: str, fields: Fields) -> list[str] | str:
    """Names, or one letter for each; what llama-server does not know is left out, as it does."""
    value = fields.get(name)
    if isinstance(value, str):
        return "".join(letter for letter in value if letter in _SAMPLER_LETTERS)[:32]
    names = fields.texts(name, 32, 32) or []
    return [sampler for sampler in names if sampler in _SAMPLER_NAMES]


def _logit_bias(name: str, fields: Fields) -> Any:
    """`{"id or text": bias | false}` or `[[id or text, bias | false]…]`, as it came."""
    value = fields.get(name)
    allowed = "an object, or a list of [token id or text, number or false]"
    if not isinstance(value, dict | list) or len(value) > MAX_BIASES:
        raise wrong(name, allowed)
    for pair in _pairs(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise wrong(name, allowed)
        token, bias = pair
        if not isinstance(token, str):
            as_integer(name, token, 0, INT32)
        elif len(token) > 1024:
            raise wrong(name, allowed)
        if bias is True or (bias is not False and not isinstance(bias, int | float)):
            raise wrong(name, allowed)
        if bias is not False:
            as_number(name, bias, -1e9, 1e9)
    return value


def _pairs(value: dict[str, Any] | list[Any]) -> list[Any]:
    return [_of_object(item) for item in value.items()] if isinstance(value, dict) else value


def _of_object(item: tuple[str, Any]) -> list[Any]:
    token, bias = item
    if token.isascii() and token.isdecimal() and len(token) < 11:
        return [int(token), bias]
    return [token, bias]


def _lora(name: str, fields: Fields) -> list[dict[str, Any]]:
    return [adapter_scale(entry) for entry in fields.objects(name, 256) or []]


def adapter_scale(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One `{"id", "scale"}`. Raises InvalidRequest."""
    scale = as_number("scale", entry.get("scale", 0.0), -1e6, 1e6)
    return {"id": as_integer("id", entry.get("id"), 0, INT32), "scale": scale}


def _preserved(name: str, fields: Fields) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list) or len(value) > 1024:
        raise wrong(name, "a list of tokens")
    if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in value):
        raise wrong(name, "a list of tokens")
    return [item[:256] if isinstance(item, str) else as_integer(name, item, 0, INT32) for item in value]


def _json_schema(name: str, fields: Fields) -> Any:
    schema = fields.get(name)
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            raise InvalidRequest(f"Field '{name}': the text is no JSON.") from None
    return check_schema(schema, name)


def _grammar(name: str, fields: Fields) -> str:
    return check_grammar(fields.text(name) or "")


_OTHERS: dict[str, Callable[[str, Fields], Any]] = {
    "seed": _seed,
    "stop": _stop,
    "dry_sequence_breakers": _breakers,
    "samplers": _samplers,
    "logit_bias": _logit_bias,
    "lora": _lora,
    "grammar": _grammar,
    "json_schema": _json_schema,
    "grammar_lazy": lambda name, fields: fields.flag(name),
    "grammar_triggers": lambda name, fields: check_triggers(fields.objects(name, 128) or []),
    "preserved_tokens": _preserved,
}
