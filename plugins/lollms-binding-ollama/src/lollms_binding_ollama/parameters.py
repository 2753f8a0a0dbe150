"""Generation parameters as Ollama calls them."""

from __future__ import annotations

from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import Parameters

from .settings import OllamaSettings

_OPTIONS = {
    "max_tokens": "num_predict",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
    "seed": "seed",
    "stop": "stop",
}
_OTHERS = ("context_size", "options", "keep_alive", "think", "format", "json_schema", "response_format")
_LEVELS = ("low", "medium", "high", "max")


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks of Ollama beside its prompt."""

    options: dict[str, Any]
    format: Any = None
    think: bool | str | None = None
    keep_alive: float | str | None = None
    ignored: tuple[str, ...] = ()
    """Parameters that mean nothing to Ollama."""

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the library's `chat` and `generate`."""
        named = {"format": self.format, "think": self.think, "keep_alive": self.keep_alive}
        return {
            "options": self.options,
            **{name: value for name, value in named.items() if value is not None},
        }


def read_wishes(given: Parameters, settings: OllamaSettings, default_context_size: int) -> Wishes:
    """What the request's parameters and the instance's settings say; the request wins. Raises InvalidRequest."""
    options = dict(settings.options)
    if settings.num_ctx is not None:
        options["num_ctx"] = settings.num_ctx
    context_size = given.get("context_size")
    if context_size not in (None, default_context_size):  # the kernel always sends the default
        options["num_ctx"] = context_size
    options.update({_OPTIONS[name]: value for name, value in given.items() if name in _OPTIONS})
    if options.get("seed", 0) == -1:
        del options["seed"]  # "any" for us, a seed like others for Ollama
    own = given.get("options", {})
    if not isinstance(own, dict):
        raise _wrong("options", own, "an object with Ollama's own options, e.g. {'num_gpu': 20}")
    options.update({name: value for name, value in own.items() if value is not None})
    return Wishes(
        options=options,
        format=_format(given),
        think=_think(given.get("think")),
        keep_alive=_keep_alive(given.get("keep_alive", settings.keep_alive)),
        ignored=tuple(sorted(name for name in given if name not in _OPTIONS and name not in _OTHERS)),
    )


def _think(value: Any) -> bool | str | None:
    if value is None or isinstance(value, bool) or value in _LEVELS:
        return value  # type: ignore[no-any-return]
    raise _wrong("think", value, "true, false, " + ", ".join(_LEVELS))


def _keep_alive(value: Any) -> float | str | None:
    if value is None or (isinstance(value, int | float | str) and not isinstance(value, bool)):
        return value
    raise _wrong("keep_alive", value, "a number of seconds or a text such as '10m'")


def _format(given: Parameters) -> Any:
    """`"json"` or a JSON schema, whichever of the known ways it was asked in."""
    if given.get("json_schema") is not None:
        return _schema("json_schema", given["json_schema"])
    if given.get("response_format") is not None:
        return _response_format(given["response_format"])
    value = given.get("format")
    if value in (None, "", "json"):
        return value or None
    return _schema("format", value)


def _response_format(value: Any) -> Any:
    """OpenAI's way: `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {"schema": …}}`."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return "json"
    if kind == "json_schema" and isinstance(value.get("json_schema"), dict):
        return _schema("response_format", value["json_schema"].get("schema"))
    raise _wrong("response_format", value, "of type text, json_object or json_schema")


def _schema(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise _wrong(name, value, "a JSON schema") from None
    if not isinstance(value, dict):
        raise _wrong(name, value, "a JSON schema")
    return value


def _wrong(name: str, value: Any, allowed: str) -> InvalidRequest:
    return InvalidRequest(f"parameters.{name} is {str(value)[:80]!r}.", hint=f"It must be {allowed}.")
