"""Generation parameters of a text request, as Google's protocol calls them."""

from __future__ import annotations

from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import ModelInfo, Notice, Parameters

_SAME = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty")
PARAMETERS = (
    *_SAME,
    *"max_tokens seed stop think thinking_budget json_schema response_format format tool_choice".split(),
    *"media_resolution context_size".split(),
)
_EFFORTS = ("minimal", "low", "medium", "high")
_RESOLUTIONS = ("low", "medium", "high")
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "any": "ANY"}
MAX_STOPS = 5
MAX_SEED = 2**31 - 1


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks of the service beside its prompt."""

    config: dict[str, Any]
    function_calling: dict[str, Any] | None
    notices: list[Notice]


def read_wishes(given: Parameters, model: ModelInfo, include_thoughts: bool) -> Wishes:
    """What the parameters mean for a model. Raises InvalidRequest for values that cannot be used."""
    given = {name: value for name, value in given.items() if value is not None}
    notices = ignored_parameters(given, set(PARAMETERS))
    config: dict[str, Any] = {name: given[name] for name in _SAME if name in given}
    config.update(_limit(given, model, notices))
    config.update(_seed(given))
    config.update(_stops(given, notices))
    config.update(_form(given))
    thinking = _thinking(given, model, include_thoughts, notices)
    if thinking:
        config["thinking_config"] = thinking
    if "media_resolution" in given:
        level = one_of("media_resolution", given["media_resolution"], _RESOLUTIONS)
        config["media_resolution"] = f"MEDIA_RESOLUTION_{level.upper()}"
    return Wishes(config=config, function_calling=_function_calling(given), notices=notices)


def ignored_parameters(given: Parameters, known: set[str]) -> list[Notice]:
    """A notice that names the parameters without effect, if there are any."""
    names = sorted(name for name, value in given.items() if value is not None and name not in known)
    if not names:
        return []
    message = f"Parameters without effect here: {', '.join(names)}."
    return [Notice("parameters_ignored", message, {"names": names})]


def wrong(name: str, value: object, allowed: str) -> InvalidRequest:
    """The error for a parameter whose value cannot be used."""
    return InvalidRequest(f"parameters.{name} is {str(value)[:80]!r}.", hint=f"It must be {allowed}.")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """One of some words, in whatever case. Raises InvalidRequest."""
    found = next((word for word in allowed if isinstance(value, str) and word.lower() == value.lower()), None)
    if found is None:
        raise wrong(name, value, f"one of {', '.join(allowed)}")
    return found


# --- one by one ---------------------------------------------------------------------------------------------------


def _limit(given: Parameters, model: ModelInfo, notices: list[Notice]) -> dict[str, Any]:
    """The service refuses a limit that is higher than the model's."""
    if "max_tokens" not in given:
        return {}
    asked, most = given["max_tokens"], model.max_output_tokens
    if most is None or asked <= most:
        return {"max_output_tokens": asked}
    message = f"Model '{model.name}' answers with at most {most} tokens; {asked} were asked for."
    notices.append(Notice("max_tokens_reduced", message, {"asked": asked, "max_tokens": most}))
    return {"max_output_tokens": most}


def _seed(given: Parameters) -> dict[str, Any]:
    seed = given.get("seed", -1)
    if seed < 0:
        return {}  # another one each time
    if seed > MAX_SEED:
        raise wrong("seed", seed, f"at most {MAX_SEED}")
    return {"seed": seed}


def _stops(given: Parameters, notices: list[Notice]) -> dict[str, Any]:
    stops = given.get("stop") or []
    if len(stops) > MAX_STOPS:
        message = f"Gemini takes {MAX_STOPS} stop texts; the others have no effect."
        notices.append(Notice("stop_texts_ignored", message, {"stop": stops[MAX_STOPS:]}))
    return {"stop_sequences": stops[:MAX_STOPS]} if stops else {}


def _form(given: Parameters) -> dict[str, Any]:
    """JSON, with or without a schema, whichever of the known ways it was asked in."""
    if "json_schema" in given:
        return _schema("json_schema", given["json_schema"])
    if "response_format" in given:
        return _response_format(given["response_format"])
    if given.get("format") in (None, ""):
        return {}
    if given["format"] == "json":
        return {"response_mime_type": "application/json"}
    return _schema("format", given["format"])


def _response_format(value: object) -> dict[str, Any]:
    """OpenAI's way: `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {"schema": …}}`."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"response_mime_type": "application/json"}
    if kind == "json_schema" and isinstance(value, dict) and isinstance(value.get("json_schema"), dict):
        return _schema("response_format", value["json_schema"].get("schema"))
    raise wrong("response_format", value, "of type text, json_object or json_schema")


def _schema(name: str, value: object) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise wrong(name, value, "a JSON schema") from None
    if not isinstance(value, dict):
        raise wrong(name, value, "a JSON schema")
    if isinstance(value.get("schema"), dict) and isinstance(value.get("name"), str):  # as OpenAI wraps it
        value = value["schema"]
    return {"response_mime_type": "application/json", "response_json_schema": value}


def _thinking(
    given: Parameters, model: ModelInfo, include_thoughts: bool, notices: list[Notice]
) -> dict[str, Any]:
    """What `think` and `thinking_budget` say; without them a model thinks as much as it likes."""
    asked = {name: given[name] for name in ("think", "thinking_budget") if name in given}
    if not model.details.get("thinking"):
        if any(value not in (False, 0) for value in asked.values()):
            notices.append(Notice("think_ignored", f"Model '{model.name}' does not think before it answers."))
        return {}
    budget, think = asked.get("thinking_budget"), asked.get("think", True)
    thoughts = {"include_thoughts": True} if include_thoughts else {}
    if budget is not None:
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < -1:
            raise wrong("thinking_budget", budget, "a number of tokens, 0 for none or -1 for any")
        return {"thinking_budget": budget, **(thoughts if budget else {})}
    if think is False:
        return {"thinking_budget": 0}
    if think is True:
        return thoughts
    if isinstance(think, str) and think.lower() in _EFFORTS:
        return {"thinking_level": think.upper(), **thoughts}
    raise wrong("think", think, f"true, false, {', '.join(_EFFORTS)}")


def _function_calling(given: Parameters) -> dict[str, Any] | None:
    """OpenAI's `tool_choice`: auto, none, required, or `{"type": "function", "function": {"name": …}}`."""
    choice = given.get("tool_choice")
    if choice is None:
        return None
    if isinstance(choice, str) and choice in _MODES:
        return {"mode": _MODES[choice]}
    function = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return {"mode": "ANY", "allowed_function_names": [function["name"]]}
    raise wrong("tool_choice", choice, "auto, none, required or an object that names a function")
