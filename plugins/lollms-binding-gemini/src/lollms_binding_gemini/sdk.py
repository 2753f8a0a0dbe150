"""The seam between the bindings and Google's two libraries: what is asked and answered, in words of neither.

Contents and generation settings are the protocol's own JSON with names in snake_case, which both libraries take; what
comes back are the few things that bindings use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import msgspec

from lollms_kernel.errors import InvalidRequest, LollmsError
from lollms_kernel.types import Notice


class RemoteModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the service lists it; `name` without `models/`."""

    name: str
    display_name: str | None = None
    description: str | None = None
    version: str | None = None
    input_token_limit: int | None = None
    output_token_limit: int | None = None
    methods: tuple[str, ...] = ()
    thinking: bool = False
    temperature: float | None = None
    max_temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request for content. `config` is the protocol's `generationConfig`, `safety` category to threshold."""

    model: str
    contents: list[dict[str, Any]]
    system: str | None = None
    config: dict[str, Any] = {}
    safety: dict[str, str] = {}
    functions: tuple[dict[str, Any], ...] = ()
    """Each `{"name", "description"?, "parameters"?}`, the parameters as JSON schema."""
    function_calling: dict[str, Any] | None = None


class FunctionCall(msgspec.Struct, frozen=True):
    """The model asks for a function."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of content: text (a thought if `thought` is set), a function call, or media."""

    text: str = ""
    thought: bool = False
    call: FunctionCall | None = None
    data: bytes | None = None
    mime_type: str | None = None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens so far."""

    prompt: int = 0
    answer: int = 0
    thoughts: int = 0
    cached: int = 0


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a streamed answer. `finish` and `blocked` are the protocol's words, e.g. `MAX_TOKENS`."""

    parts: tuple[Part, ...] = ()
    finish: str | None = None
    blocked: str | None = None
    """Why the prompt was refused."""
    harms: tuple[str, ...] = ()
    """Categories for which something was blocked."""
    counts: Counts | None = None


class Refused(Exception):
    """An answer other than 2xx, or an error in the middle of one. Its texts are looked at, never passed on."""

    def __init__(
        self, status: int, body: object, headers: Mapping[str, str] | None = None, model: str | None = None
    ) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers or {}
        self.model = model
        error = body[0] if isinstance(body, list) and body else body
        error = error.get("error", error) if isinstance(error, dict) else {}
        self.error: dict[str, Any] = error if isinstance(error, dict) else {}


def unusable(place: str) -> LollmsError:
    """The error for a function or a schema that the protocol has no place for."""
    return InvalidRequest(
        f"A function or schema of the request is not usable at '{place}'.",
        hint="Give each function a name, a description and parameters (a JSON schema of type object).",
    )


class Sdk(Protocol):
    """One of the libraries, bound to one instance's key and address."""

    async def models(self) -> list[RemoteModel]:
        """Every model of the service."""

    async def model(self, name: str) -> RemoteModel:
        """One model, also one that is not listed."""

    def fit(self, call: Call) -> tuple[Call, list[Notice]]:
        """The call as this library can carry it, and what it cannot."""

    async def stream(self, call: Call) -> AsyncIterator[Piece]:
        """The answer. The iterator has an `aclose` that closes the connection."""

    async def count_tokens(self, model: str, text: str) -> int:
        """The number of tokens of a text."""

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """One vector for each text."""

    async def close(self) -> None:
        """Close all connections."""
