"""The `ollama` library's client as this binding wants it. Imported when an instance is opened, never before."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx
import ollama
from pydantic import ValidationError

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.upstream import on_this_machine

from .refusals import Refused
from .settings import OllamaSettings

MAX_ERROR = 16_384
"""Bytes of an error's body that are looked at."""
_NO_CUTTING = b',"truncate":false,"shift":false}'


def make_client(settings: OllamaSettings) -> ollama.AsyncClient:
    """A client for the instance's host and no other. Takes a moment (certificates): call it in a thread."""
    asking = [] if settings.truncate else [_forbid_cutting]
    return ollama.AsyncClient(
        settings.host,
        auth=_Key(settings.api_key),
        event_hooks={"request": asking, "response": [_raise_refusal]},
        follow_redirects=False,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        timeout=httpx.Timeout(settings.http_timeouts),
        trust_env=not on_this_machine(settings.host),
    )


class _Key(httpx.Auth):
    """The instance's key and no other: the library would send the environment's OLLAMA_API_KEY to any host."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.pop("authorization", None)
        if self._key:
            request.headers["authorization"] = f"Bearer {self._key}"
        yield request


async def _forbid_cutting(request: httpx.Request) -> None:
    """Add what the library has no argument for: too long a prompt is an error (to Ollama since the end of 2025)."""
    if request.url.path.endswith(("/api/chat", "/api/generate")):
        body = request.content.rstrip().removesuffix(b"}") + _NO_CUTTING
        request.stream = httpx.ByteStream(body)
        request.headers["content-length"] = str(len(body))


async def _raise_refusal(response: httpx.Response) -> None:
    """Raise what is not 2xx here, with its headers: the library's own error has none."""
    if response.is_success:
        return
    body = bytearray()
    with suppress(httpx.HTTPError):
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_ERROR:
                break
    model = None
    with suppress(ValueError, AttributeError, httpx.RequestNotRead):
        model = json.loads(response.request.content).get("model")
    raise Refused(response.status_code, response.headers, _error_text(bytes(body)), model)


def _error_text(body: bytes) -> str:
    with suppress(ValueError, AttributeError):
        return str(json.loads(body).get("error", ""))
    return ""


# --- calls --------------------------------------------------------------------------------------------------------


async def chat(
    client: ollama.AsyncClient, arguments: Mapping[str, Any]
) -> AsyncIterator[ollama.ChatResponse]:
    """The parts of a chat answer."""
    return await client.chat(**arguments, stream=True)


async def complete(
    client: ollama.AsyncClient, arguments: Mapping[str, Any]
) -> AsyncIterator[ollama.GenerateResponse]:
    """The parts of a raw prompt's continuation."""
    return await client.generate(**arguments, stream=True)


def read_tools(tools: Sequence[Any]) -> tuple[list[ollama.Tool], list[str]]:
    """The library's tools, and the names of those whose schema it cannot carry whole. Raises InvalidRequest."""
    read, simplified = [], []
    for tool in tools:
        try:
            known = ollama.Tool.model_validate(tool)
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise InvalidRequest(
                f"A function's description is not usable at '{place}'.",
                hint="Give name, description and parameters (a JSON schema of type object).",
            ) from None
        read.append(known)
        if _lost(tool, known.model_dump(exclude_none=True, by_alias=True)):
            simplified.append((known.function.name if known.function else None) or "?")
    return read, simplified


def _lost(given: Any, kept: Any) -> bool:
    """Whether something of `given` is not in `kept`."""
    if isinstance(given, Mapping):
        return not isinstance(kept, Mapping) or any(
            value is not None and (key not in kept or _lost(value, kept[key])) for key, value in given.items()
        )
    return False
