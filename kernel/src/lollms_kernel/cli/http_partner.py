"""A running server as partner, over LoLLMs REST and server-sent events."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from ..doctor.running import is_loopback, server_health
from ..errors import (
    Forbidden,
    GenerationFailed,
    InvalidRequest,
    LollmsError,
    NotFound,
    NotSupported,
    PayloadTooLarge,
    QueueTimeout,
    Unauthorized,
    Unavailable,
)
from ..types import Chunk, GenerateRequest
from .wire import decode_events, encode_request

_ERRORS: dict[int, type[LollmsError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: QueueTimeout,
    413: PayloadTooLarge,
    422: InvalidRequest,
    501: NotSupported,
    503: Unavailable,
}
_CURES = {
    401: "Give the right one with --api-key or LOLLMS_API_KEY.",
    403: "Give one with --api-key or LOLLMS_API_KEY.",
}

ANSWER_TIMEOUT = 900.0
"""Longest silence inside an answer: more than the server itself grants a queue and a silent engine together."""


class HttpPartner:
    """A lollms server at `url`."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = _checked_url(url)
        self._client = httpx.Client(
            base_url=self.url,
            headers={b"X-API-Key": _checked_key(api_key)} if api_key else {},
            timeout=httpx.Timeout(ANSWER_TIMEOUT, connect=10.0),
            trust_env=not is_loopback(self.url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def check(self) -> None:
        """Raise Unavailable unless a lollms server answers."""
        if server_health(self.url) is None:
            raise Unavailable(
                f"No lollms server answers at {self.url}.",
                hint="Start it with 'lollms serve', or leave --url out to answer without a server.",
            )

    def ask(self, request: GenerateRequest) -> Generator[Chunk, None, None]:
        """Stream the answer; leaving closes the connection, which stops the server's work."""
        try:
            with self._client.stream("POST", "/api/v1/generate", json=encode_request(request)) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise error_of(response)
                yield from decode_events(lines_of(response.iter_bytes()))
        except httpx.HTTPError as error:
            raise self._lost(error) from error

    def personalities(self) -> list[str]:
        """Keys of list_personalities."""
        return sorted(self._get("/api/v1/list_personalities")["personalities"])

    def bindings(self) -> list[str]:
        """Keys of list_active_bindings."""
        return sorted(self._get("/api/v1/list_active_bindings")["bindings"])

    def models(self, binding: str | None) -> list[str]:
        """Names of list_available_models."""
        if binding is None:
            binding = self._get("/api/v1/get_default_bindings")["defaults"].get("ttt_binding")
        if binding is None:
            return []
        listing = self._get(f"/api/v1/list_available_models/{quote(binding, safe='')}")
        return [model["name"] for model in listing["models"]]

    def _get(self, path: str) -> Any:
        try:
            response = self._client.get(path)
        except httpx.HTTPError as error:
            raise self._lost(error) from error
        if response.status_code != httpx.codes.OK:
            raise error_of(response)
        return response.json()

    def _lost(self, error: httpx.HTTPError) -> LollmsError:
        what = str(error) or type(error).__name__
        return Unavailable(f"The connection to {self.url} failed: {what}.", hint="Does the server still run?")


def _checked_url(url: str) -> str:
    try:
        known = httpx.URL(url).scheme in ("http", "https")
    except httpx.InvalidURL:
        known = False
    if not known:
        raise InvalidRequest(
            f"'{url}' is not a server's address.", hint="It looks like http://127.0.0.1:9601."
        )
    return url.rstrip("/")


def _checked_key(key: str) -> bytes:
    """The key as a header can hold it; checked here because the error of an HTTP library would quote it."""
    if not key.strip().isprintable():
        raise InvalidRequest("The API key holds control characters.", hint="Give it without line breaks.")
    return key.strip().encode()


def lines_of(pieces: Iterable[bytes]) -> Iterator[str]:
    """The lines of a body. Only LF ends one: JSON text may hold U+2028 and others that `splitlines` splits at."""
    held = b""
    for piece in pieces:
        *whole, held = (held + piece).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if held:
        yield held.decode(errors="replace")


def error_of(response: httpx.Response) -> LollmsError:
    """The server's error as the exception that its status stands for."""
    try:
        detail = msgspec.json.decode(response.content)["detail"]
    except (msgspec.DecodeError, LookupError, TypeError):
        detail = f"The server answered {response.status_code} {response.reason_phrase}."
    if isinstance(detail, list):  # a list of validation problems
        detail = "; ".join(
            f"{'.'.join(map(str, problem.get('loc', ())))}: {problem.get('msg')}" for problem in detail
        )
    kind = _ERRORS.get(response.status_code, GenerationFailed)
    return kind(str(detail), hint=_CURES.get(response.status_code))
