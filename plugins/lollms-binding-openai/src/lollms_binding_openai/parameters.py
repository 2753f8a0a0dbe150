"""Generation parameters of a text request, as the service calls them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import GenerateRequest, Notice, Parameters

from .catalogue import reasons
from .listing import Engine

_EVERYWHERE = (
    "temperature top_p presence_penalty frequency_penalty seed stop logit_bias response_format reasoning_effort "
    "verbosity service_tier tool_choice parallel_tool_calls user safety_identifier prompt_cache_key"
).split()
_NOT_WHEN_REASONING = frozenset(
    "temperature top_p presence_penalty frequency_penalty logit_bias stop".split()
)
_LLAMA_SERVER = (
    "top_k min_p typical_p repeat_penalty repeat_last_n mirostat mirostat_tau mirostat_eta ignore_eos cache_prompt "
    "grammar"
).split()
_EXTENDED: Mapping[Engine, Mapping[str, str]] = {
    "openai": {},
    "llama-server": {name: name for name in _LLAMA_SERVER},
    "vllm": {
        "top_k": "top_k",
        "min_p": "min_p",
        "repeat_penalty": "repetition_penalty",
        "ignore_eos": "ignore_eos",
    },
    "other": {"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"},
}
"""Parameters that OpenAI does not know: our name to the engine's."""

_HANDLED = ("max_tokens", "context_size", "json_schema", "extra_body", "tools")
_FIXED = frozenset(("model", "messages", "prompt", "stream", "stream_options"))
"""Fields that `extra_body` cannot replace: they make the request what it is."""

MAX_STOPS_AT_OPENAI = 4
MAX_SCHEMA = 2**18
MAX_SCHEMA_DEPTH = 64


class Mapped(msgspec.Struct, frozen=True):
    """Fields of the body, and what of the parameters has no effect."""

    fields: dict[str, Any]
    notices: list[Notice]


def map_parameters(given: Parameters, model: str, engine: Engine, extended: bool | None) -> Mapped:
    """What the service gets for these parameters. Raises InvalidRequest for values that no service takes.

    `extended` says whether to send what OpenAI does not know; None: to engines that are known to know it.
    """
    given = {name: value for name, value in given.items() if value is not None}
    thinks = reasons(model)
    known = [name for name in _EVERYWHERE if not (thinks and name in _NOT_WHEN_REASONING)]
    beyond = _EXTENDED[engine] if extended or (extended is None and engine != "other") else {}
    fields = {name: _checked(name, given[name]) for name in known if name in given}
    fields.update({theirs: given[ours] for ours, theirs in beyond.items() if ours in given})
    if "max_tokens" in given:
        fields["max_completion_tokens" if engine == "openai" or thinks else "max_tokens"] = given[
            "max_tokens"
        ]
    if "json_schema" in given:
        fields["response_format"] = _response_format(given["json_schema"])
    if fields.get("seed", 0) < 0:
        del fields["seed"]  # "random", as if nothing were said
    notices = ignored_parameters(given, {*known, *beyond, *_HANDLED})
    stops = fields.get("stop", ())
    if engine == "openai" and len(stops) > MAX_STOPS_AT_OPENAI:
        fields["stop"] = stops[:MAX_STOPS_AT_OPENAI]
        message = f"OpenAI takes {MAX_STOPS_AT_OPENAI} stop texts; the others have no effect."
        notices.append(Notice("stop_texts_ignored", message, {"stop": stops[MAX_STOPS_AT_OPENAI:]}))
    fields.update(extra_fields(given.get("extra_body", {})))
    return Mapped(fields, notices)


def ignored_parameters(given: Parameters, known: Collection[str]) -> list[Notice]:
    """A notice that names the parameters without effect, if there are any."""
    names = sorted(name for name, value in given.items() if value is not None and name not in known)
    if not names:
        return []
    return [
        Notice("parameters_ignored", f"Parameters without effect here: {', '.join(names)}.", {"names": names})
    ]


def ignored_system(request: GenerateRequest) -> list[Notice]:
    """A notice that the system text has no effect, if there is one."""
    if not request.system:
        return []
    return [Notice("system_ignored", f"The system text has no effect on '{request.generation_type}'.")]


def extra_fields(extra: object) -> dict[str, Any]:
    """The fields of `extra_body`. Raises InvalidRequest where they would make it another request."""
    if not isinstance(extra, dict):
        raise wrong("extra_body", extra, "an object with fields of the service's own")
    fixed = sorted(_FIXED & extra.keys())
    if fixed:
        raise InvalidRequest(
            f"parameters.extra_body holds '{fixed[0]}'.", hint="Leave it out; the request itself says it."
        )
    return extra


def wrong(name: str, value: object, allowed: str) -> InvalidRequest:
    """The error for a parameter whose value cannot be used."""
    return InvalidRequest(f"parameters.{name} is {str(value)[:80]!r}.", hint=f"It must be {allowed}.")


def _checked(name: str, value: Any) -> Any:
    if name == "logit_bias":
        return _logit_bias(value)
    if name == "response_format" and not (isinstance(value, dict) and isinstance(value.get("type"), str)):
        raise wrong(name, value, 'an object such as {"type": "json_object"}')
    return value


def _logit_bias(value: object) -> dict[str, float]:
    """`{"id": bias}` or `[[id, bias], …]`; services know token ids only."""
    pairs = list(value.items()) if isinstance(value, dict) else value
    allowed = "an object or a list of pairs: a token id, and a number from -100 to 100"
    if not isinstance(pairs, list):
        raise wrong("logit_bias", value, allowed)
    result: dict[str, float] = {}
    for pair in pairs:
        token, bias = pair if isinstance(pair, list | tuple) and len(pair) == 2 else ("", None)
        if not str(token).isdecimal() or isinstance(bias, bool) or not isinstance(bias, int | float):
            raise wrong("logit_bias", pair, allowed)
        if not -100 <= bias <= 100:
            raise wrong("logit_bias", pair, allowed)
        result[str(token)] = bias
    return result


# --- JSON schemas -----------------------------------------------------------------------------------------------


def _response_format(value: object) -> dict[str, Any]:
    """OpenAI's wrapping of a JSON schema, which is given as an object or as JSON text."""
    allowed = f"a JSON schema of at most {MAX_SCHEMA} bytes: an object or its JSON text"
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise wrong("json_schema", value, allowed) from None
    if not isinstance(value, dict) or len(msgspec.json.encode(value)) > MAX_SCHEMA:
        raise wrong("json_schema", value, allowed)
    if isinstance(value.get("schema"), dict) and isinstance(value.get("name"), str):
        return {"type": "json_schema", "json_schema": value}
    wrapped = {"name": "answer", "schema": value, "strict": _is_strict(value)}
    return {"type": "json_schema", "json_schema": wrapped}


def _is_strict(schema: object, depth: int = 0) -> bool:
    """Whether OpenAI's strict mode takes the schema: each object is closed and requires all its properties."""
    if depth > MAX_SCHEMA_DEPTH:
        return False
    if isinstance(schema, list):
        return all(_is_strict(item, depth + 1) for item in schema)
    if not isinstance(schema, dict):
        return True
    properties, required = schema.get("properties"), schema.get("required")
    if schema.get("type") == "object" or isinstance(properties, dict):
        named = {str(name) for name in required} if isinstance(required, list) else set()
        if schema.get("additionalProperties") is not False or named != set(properties or ()):
            return False
    return all(_is_strict(item, depth + 1) for item in schema.values())
