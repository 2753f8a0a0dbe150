"""Whether the services that somebody names answer; a failed check is told and hinders nothing.

No result ever holds a key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import msgspec

from ..doctor.running import is_loopback

TIMEOUT = 3.0
"""Seconds for the whole check of one service."""

OPENAI = "https://api.openai.com/v1"
GOOGLE = "https://generativelanguage.googleapis.com"


class Check(msgspec.Struct, frozen=True):
    """What came of a check; `models` are the names that the service told."""

    ok: bool
    text: str
    models: tuple[str, ...] = ()


def check(
    type_name: str, settings: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> Check | None:
    """Ask the service of an instance with these settings for its models; None if the type has no service."""
    kind = _CHECKS.get(type_name)
    return None if kind is None else kind(settings, environ)


def _ollama(settings: Mapping[str, Any], _: Mapping[str, str]) -> Check:
    host = str(settings.get("host") or "http://localhost:11434").rstrip("/")
    host = host if "://" in host else f"http://{host}"
    key = _text(settings.get("api_key"))
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return _ask(
        "Ollama", f"{host}/api/tags", headers, "models", "name", start="Is it started (`ollama serve`)?"
    )


def _openai(settings: Mapping[str, Any], environ: Mapping[str, str]) -> Check:
    base = _text(settings.get("base_url"))
    key = _text(settings.get("api_key")) or (None if base else environ.get("OPENAI_API_KEY"))
    if key is None and not base:
        return Check(False, "No key yet: set OPENAI_API_KEY, or api_key of the instance, before it is used.")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return _ask(base or "OpenAI", f"{(base or OPENAI).rstrip('/')}/models", headers, "data", "id")


def _google(settings: Mapping[str, Any], environ: Mapping[str, str]) -> Check:
    base = _text(settings.get("base_url"))
    key = _text(settings.get("google_api_key")) or (None if base else environ.get("GOOGLE_API_KEY"))
    if key is None:
        return Check(
            False, "No key yet: set GOOGLE_API_KEY, or google_api_key of the instance, before it is used."
        )
    address = f"{(base or GOOGLE).rstrip('/')}/v1beta/models"
    return _ask(base or "Google", address, {"x-goog-api-key": key}, "models", "name")


_CHECKS: dict[str, Callable[[Mapping[str, Any], Mapping[str, str]], Check]] = {
    "ollama_binding": _ollama,
    "openai_binding": _openai,
    "dalle_binding": _openai,
    "gemini_binding": _google,
    "gemini_image_binding": _google,
}


def _ask(
    who: str,
    address: str,
    headers: Mapping[str, str],
    field: str,
    name: str,
    start: str = "Is the address right?",
) -> Check:
    """The models that a service lists under `field`, each with its `name`."""
    if not all(value.isprintable() and value.isascii() for value in headers.values()):
        return Check(False, "The key holds characters that no key has.")
    try:
        response = httpx.get(
            address, headers=dict(headers), timeout=TIMEOUT, trust_env=not is_loopback(address)
        )
        if response.status_code in (400, 401, 403):
            return Check(False, f"{who} refuses the key (status {response.status_code}).")
        response.raise_for_status()
        listed = msgspec.json.decode(response.content)[field]
        models = tuple(str(model[name]).removeprefix("models/") for model in listed)
    except httpx.HTTPStatusError as error:
        return Check(False, f"{who} answers with status {error.response.status_code}. {start}")
    except (msgspec.DecodeError, LookupError, TypeError):
        return Check(False, f"What answers there is not {who}. Is the address right?")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return Check(False, f"{who} does not answer ({type(error).__name__}). {start}")
    return Check(True, f"{who} answers and has {len(models)} model{'' if len(models) == 1 else 's'}.", models)


def _text(value: Any) -> str | None:
    """A value that is a plain text; what it refers to with `${NAME}` is for the server to look up."""
    return value if isinstance(value, str) and value and "${" not in value else None
