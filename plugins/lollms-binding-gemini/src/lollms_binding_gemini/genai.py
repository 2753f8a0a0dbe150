"""The seam's side of google-genai. Imported when an instance is opened, never before."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import httpx2
from google import genai
from google.genai import errors, types
from pydantic import ValidationError

from lollms_kernel.types import Notice
from lollms_kernel.upstream import on_this_machine

from .address import API_VERSION
from .sdk import Call, Counts, FunctionCall, Part, Piece, Refused, RemoteModel, unusable
from .settings import ServiceSettings

MAX_ERROR = 65_536
"""Bytes of an error's body that are looked at."""
PAGE = 1000
_MODEL = re.compile(r"/((?:tunedModels/)?[^/:]+)(?::\w+)?$")

_response: ContextVar[list[httpx2.Response] | None] = ContextVar("_response", default=None)
"""Where the response of the stream that is being opened is noted."""


class Genai:
    """One client of google-genai: the instance's own key and address, whatever the environment says.

    Makes certificates ready, which takes a moment: create it in a thread. Closing it is a matter of the event loop.
    """

    def __init__(self, settings: ServiceSettings, url: str, key: str | None) -> None:
        connect, read, write, pool = settings.http_timeouts
        self._timeout = httpx2.Timeout(connect=connect, read=read, write=write, pool=pool)
        self._http = httpx2.AsyncClient(
            # A redirect would carry the prompt to an address that nobody configured.
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
            event_hooks={"request": [self._limit], "response": [_note, _raise_refusal]},
            trust_env=not on_this_machine(url),
        )
        self._url, self._key = url, key or "none"
        self._client = genai.Client(
            api_key=self._key,  # an empty one would make the library look into the environment
            vertexai=False,
            http_options=types.HttpOptions(
                base_url=url, api_version=API_VERSION, httpx_async_client=self._http
            ),
        )
        self._models = self._client.aio.models

    async def _limit(self, request: httpx2.Request) -> None:
        """The library asks for no time limits at all where it has none of its own, which would be one for all."""
        request.extensions["timeout"] = self._timeout.as_dict()

    async def close(self) -> None:
        """Close all connections."""
        self._client.close()
        await self._client.aio.aclose()
        await self._http.aclose()

    # --- models ---

    async def models(self) -> list[RemoteModel]:
        """Every model of the service."""
        pages = await self._models.list(config={"page_size": PAGE})
        return [_model(model) async for model in pages]

    async def model(self, name: str) -> RemoteModel:
        """One model, also one that is not listed."""
        return _model(await self._models.get(model=name))

    # --- content ---

    def fit(self, call: Call) -> tuple[Call, list[Notice]]:
        """Everything can be carried."""
        return call, []

    async def stream(self, call: Call) -> AsyncIterator[Piece]:
        """The answer as it comes."""
        contents: Any = call.contents
        try:
            config = _config(call)
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise unusable(place) from None
        pieces = await self._models.generate_content_stream(
            model=call.model, contents=contents, config=config
        )
        return _Stream(pieces)

    async def count_tokens(self, model: str, text: str) -> int:
        """The number of tokens of a text."""
        answer = await self._models.count_tokens(model=model, contents=text)
        return answer.total_tokens or 0

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """One vector for each text."""
        contents: Any = [{"parts": [{"text": text}]} for text in texts]
        answer = await self._models.embed_content(model=model, contents=contents)
        return [list(vector.values or ()) for vector in answer.embeddings or ()]

    async def predict(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of `models/…:predict`, which Imagen speaks.

        The library has no way to it any more: since Google retired Imagen at this service, only gateways have it.
        """
        response = await self._http.post(
            f"{self._url}/{API_VERSION}/models/{model}:predict",
            json=body,
            headers={"x-goog-api-key": self._key},
        )
        answer = response.json()
        if not isinstance(answer, dict):
            raise ValueError("no object")
        return answer


class _Stream:
    """The pieces of one answer; closing it closes the connection at once.

    The library's generators are nested, and closing the outermost leaves the inner ones, which hold the connection, to
    the garbage collector.
    """

    def __init__(self, answers: AsyncIterator[types.GenerateContentResponse]) -> None:
        self._answers = answers
        self._opened: list[httpx2.Response] = []

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> Piece:
        token = _response.set(self._opened)
        try:
            answer = await anext(self._answers)
        except errors.APIError as error:  # in the middle: a refusal at the beginning is raised by the hook
            raise Refused(error.code, error.details) from None
        finally:
            _response.reset(token)
        return _piece(answer)

    async def aclose(self) -> None:
        """Close generator and connection."""
        if isinstance(self._answers, AsyncGenerator):
            await self._answers.aclose()
        for response in self._opened:
            await response.aclose()


# --- hooks of the HTTP client -------------------------------------------------------------------------------------


async def _note(response: httpx2.Response) -> None:
    opened = _response.get()
    if opened is not None:
        opened.append(response)


async def _raise_refusal(response: httpx2.Response) -> None:
    """Raise what is not 2xx here, having read a bounded part of it."""
    if response.is_success:
        return
    body = bytearray()
    with suppress(httpx2.HTTPError):
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_ERROR:
                break
    details: object = None
    with suppress(ValueError):
        details = json.loads(bytes(body))
    found = _MODEL.search(response.request.url.path)
    raise Refused(response.status_code, details, response.headers, found[1] if found else None)


# --- to the library's types ---------------------------------------------------------------------------------------


def _config(call: Call) -> types.GenerateContentConfig:
    known: dict[str, Any] = {
        **call.config,
        "safety_settings": [
            {"category": category, "threshold": threshold} for category, threshold in call.safety.items()
        ],
        # It would look for functions of this process that the model may call.
        "automatic_function_calling": {"disable": True},
    }
    if call.system:
        known["system_instruction"] = call.system
    if call.functions:
        known["tools"] = [{"function_declarations": [_declaration(function) for function in call.functions]}]
    if call.function_calling:
        known["tool_config"] = {"function_calling_config": call.function_calling}
    return types.GenerateContentConfig.model_validate(known)


def _declaration(function: dict[str, Any]) -> dict[str, Any]:
    renamed = {"name": "name", "description": "description", "parameters": "parameters_json_schema"}
    return {theirs: function[ours] for ours, theirs in renamed.items() if function.get(ours)}


# --- from the library's types -------------------------------------------------------------------------------------


def _piece(answer: types.GenerateContentResponse) -> Piece:
    candidate = answer.candidates[0] if answer.candidates else None
    feedback = answer.prompt_feedback
    ratings = [
        *((candidate and candidate.safety_ratings) or ()),
        *((feedback and feedback.safety_ratings) or ()),
    ]
    return Piece(
        parts=tuple(_parts(candidate.content) if candidate and candidate.content else ()),
        finish=_word(candidate.finish_reason) if candidate else None,
        blocked=_word(feedback.block_reason) if feedback else None,
        harms=tuple(word for rating in ratings if rating.blocked and (word := _word(rating.category))),
        counts=_counts(answer.usage_metadata),
    )


def _parts(content: types.Content) -> Iterator[Part]:
    for part in content.parts or ():
        if part.text:
            yield Part(text=part.text, thought=bool(part.thought))
        if part.function_call is not None:
            call = part.function_call
            yield Part(call=FunctionCall(call.name or "", call.args or {}, call.id))
        if part.inline_data is not None and part.inline_data.data and not part.thought:
            yield Part(data=part.inline_data.data, mime_type=part.inline_data.mime_type)


def _counts(usage: types.GenerateContentResponseUsageMetadata | None) -> Counts | None:
    if usage is None:
        return None
    return Counts(
        prompt=(usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
        answer=usage.candidates_token_count or 0,
        thoughts=usage.thoughts_token_count or 0,
        cached=usage.cached_content_token_count or 0,
    )


def _model(model: types.Model) -> RemoteModel:
    return RemoteModel(
        name=(model.name or "").removeprefix("models/"),
        display_name=model.display_name,
        description=model.description,
        version=model.version,
        input_token_limit=model.input_token_limit,
        output_token_limit=model.output_token_limit,
        methods=tuple(model.supported_actions or ()),
        thinking=bool(model.thinking),
        temperature=model.temperature,
        max_temperature=model.max_temperature,
        top_p=model.top_p,
        top_k=model.top_k,
    )


def _word(value: object) -> str | None:
    """The protocol's word of one of the library's enumerations; none for "unspecified"."""
    word = str(getattr(value, "value", value) or "")
    return None if not word or word.endswith("_UNSPECIFIED") else word
