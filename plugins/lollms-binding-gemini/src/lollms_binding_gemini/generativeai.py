"""The seam's side of google-generativeai, over REST and in threads: its async calls work over gRPC only.

Its messages and clients are used below `GenerativeModel`, which knows only one key for the whole process and reads one
piece ahead, so that every piece of an answer would come late.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import requests
from google.ai.generativelanguage_v1beta import GenerativeServiceClient, ModelServiceClient
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPICallError
from google.generativeai import protos
from urllib3.exceptions import NewConnectionError

from lollms_kernel.errors import ConfigError
from lollms_kernel.types import Notice
from lollms_kernel.upstream import on_this_machine

from .proto_schema import simplified
from .sdk import Call, Counts, FunctionCall, Part, Piece, Refused, RemoteModel, unusable
from .settings import ServiceSettings
from .threads import Line, LineAdapter, Threads

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = 1000
_CARRIED = frozenset(
    "max_output_tokens temperature top_p top_k stop_sequences presence_penalty frequency_penalty response_mime_type "
    "response_schema".split()
)


class Generativeai:
    """Clients of google-generativeai with the instance's own key and address."""

    def __init__(self, settings: ServiceSettings, url: str, key: str | None) -> None:
        if urlsplit(url).path:
            raise ConfigError(
                f"Binding instance '{settings.binding_instance_name}': google-generativeai cannot use a `base_url` "
                "with a path.",
                hint="Leave `sdk` out: google-genai can.",
            )
        logger.warning(
            "binding %s uses google-generativeai, which Google no longer supports; google-genai replaces it.",
            settings.binding_instance_name,
        )
        options = ClientOptions(api_key=key or "none", api_endpoint=url)
        self._content = GenerativeServiceClient(client_options=options, transport="rest")
        self._catalogue = ModelServiceClient(client_options=options, transport="rest")
        self._limits = {"retry": None, "timeout": settings.http_timeouts[1]}
        self._threads = Threads()
        for client in (self._content, self._catalogue):
            session: requests.Session = client.transport._session
            session.mount("https://", LineAdapter(settings.connect_timeout, settings.http_timeouts[1]))
            session.mount("http://", LineAdapter(settings.connect_timeout, settings.http_timeouts[1]))
            session.trust_env = not on_this_machine(url)
            session.max_redirects = 0

    async def close(self) -> None:
        """Close all connections."""
        self._threads.close()
        self._content.transport.close()
        self._catalogue.transport.close()

    # --- models ---------------------------------------------------------------------------------------------------

    async def models(self) -> list[RemoteModel]:
        """Every model of the service."""
        request = protos.ListModelsRequest(page_size=PAGE)
        return await self._ask(
            lambda: [_model(model) for model in self._catalogue.list_models(request, **self._limits)]
        )

    async def model(self, name: str) -> RemoteModel:
        """One model, also one that is not listed."""
        request = protos.GetModelRequest(name=_path(name))
        return await self._ask(lambda: _model(self._catalogue.get_model(request, **self._limits)), name)

    # --- content --------------------------------------------------------------------------------------------------

    def fit(self, call: Call) -> tuple[Call, list[Notice]]:
        """Without what came after the library's last version, and with schemas in its smaller form."""
        config, functions, simpler = dict(call.config), [], []
        if "response_json_schema" in config:
            config["response_schema"], whole = simplified(config.pop("response_json_schema"))
            simpler += [] if whole else ["the answer's schema"]
        for function in call.functions:
            parameters, whole = simplified(function.get("parameters") or {"type": "object"})
            simpler += [] if whole else [str(function["name"])]
            functions.append({**function, "parameters": parameters})
        lost = sorted(config.keys() - _CARRIED)
        fitting = {name: value for name, value in config.items() if name in _CARRIED}
        notices = [
            Notice(code, f"google-generativeai does not carry {what}: {', '.join(names)}.", {"names": names})
            for code, what, names in (
                ("parameters_ignored", "these", lost),
                ("schema_simplified", "every part of these schemas", simpler),
            )
            if names
        ]
        return msgspec.structs.replace(call, config=fitting, functions=tuple(functions)), notices

    async def stream(self, call: Call) -> AsyncIterator[Piece]:
        """The answer as it comes."""
        try:
            request, line = _request(call), Line()
        except (TypeError, ValueError, AttributeError):  # what its messages say of values of other types
            raise unusable("functions") from None
        answers = await self._threads.run(
            line,
            lambda: _translated(
                lambda: self._content.stream_generate_content(request, **self._limits), call.model
            ),
            give_up=lambda answers: answers.cancel(),
        )
        return _Stream(self._threads, line, answers)

    async def count_tokens(self, model: str, text: str) -> int:
        """The number of tokens of a text."""
        request = protos.CountTokensRequest(model=_path(model), contents=[_said(text)])
        answer = await self._ask(lambda: self._content.count_tokens(request, **self._limits), model)
        return int(answer.total_tokens)

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """One vector for each text."""
        path = _path(model)
        each = [protos.EmbedContentRequest(model=path, content=_said(text)) for text in texts]
        request = protos.BatchEmbedContentsRequest(model=path, requests=each)
        answer = await self._ask(lambda: self._content.batch_embed_contents(request, **self._limits), model)
        return [list(vector.values) for vector in answer.embeddings]

    async def _ask(self, call: Callable[[], T], model: str | None = None) -> T:
        return await self._threads.run(Line(), lambda: _translated(call, model))


class _Stream:
    """The pieces of one answer; closing it cuts the connection."""

    def __init__(self, threads: Threads, line: Line, answers: Any) -> None:
        self._threads = threads
        self._line = line
        self._answers = answers
        self._reading = threading.Lock()
        self._ended = False

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> Piece:
        answer = await self._threads.run(self._line, self._next)
        if answer is None:
            self._ended = True
            raise StopAsyncIteration
        return _piece(answer)

    def _next(self) -> Any:
        with self._reading:
            return _translated(lambda: next(self._answers, None))

    async def aclose(self) -> None:
        """Cut the connection, unless the answer is complete and the connection may serve others."""
        if not self._ended:
            self._line.cut()
            with suppress(RuntimeError):  # the binding was closed meanwhile: there are no threads any more
                await self._threads.run(Line(), self._give_up)

    def _give_up(self) -> None:
        with self._reading:
            self._answers.cancel()


def _translated(call: Callable[[], T], model: str | None = None) -> T:
    """What a call gives, its errors in words that the seam knows."""
    try:
        return call()
    except GoogleAPICallError as error:
        response = error.response
        try:
            body = response.json()
        except (ValueError, AttributeError):
            body = None
        raise Refused(int(error.code or 500), body, getattr(response, "headers", None), model) from None
    except requests.TooManyRedirects:
        raise Refused(302, None) from None
    except requests.ConnectionError as error:
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        if isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError):
            raise ConnectionRefusedError from None
        raise ConnectionError from None
    except requests.Timeout:
        raise TimeoutError from None
    except requests.exceptions.ChunkedEncodingError:
        raise ConnectionError from None
    except ValueError as error:  # its reader of JSON arrays says so of an answer that ends in the middle
        if str(error).startswith("Unfinished stream"):
            raise ConnectionError from None
        raise


# --- to the library's messages ------------------------------------------------------------------------------------


def _request(call: Call) -> Any:
    tools = [{"function_declarations": list(call.functions)}] if call.functions else []
    return protos.GenerateContentRequest(
        model=_path(call.model),
        contents=[_without_signatures(content) for content in call.contents],
        system_instruction=_said(call.system) if call.system else None,
        generation_config=call.config,
        safety_settings=[
            {"category": category, "threshold": threshold} for category, threshold in call.safety.items()
        ],
        tools=tools,
        tool_config={"function_calling_config": call.function_calling} if call.function_calling else None,
    )


def _without_signatures(content: dict[str, Any]) -> dict[str, Any]:
    parts = [
        {name: value for name, value in part.items() if name != "thought_signature"}
        for part in content["parts"]
    ]
    return {**content, "parts": parts}


def _said(text: str) -> dict[str, Any]:
    return {"role": "user", "parts": [{"text": text}]}


def _path(name: str) -> str:
    return name if "/" in name else f"models/{name}"


# --- from the library's messages ----------------------------------------------------------------------------------


def _piece(answer: Any) -> Piece:
    candidate = answer.candidates[0] if answer.candidates else None
    feedback = answer.prompt_feedback
    ratings = [*(candidate.safety_ratings if candidate else ()), *feedback.safety_ratings]
    usage = answer.usage_metadata
    return Piece(
        parts=tuple(_parts(candidate.content.parts) if candidate else ()),
        finish=_word(candidate.finish_reason) if candidate else None,
        blocked=_word(feedback.block_reason),
        harms=tuple(word for rating in ratings if rating.blocked and (word := _word(rating.category))),
        counts=Counts(
            prompt=usage.prompt_token_count,
            answer=usage.candidates_token_count,
            cached=usage.cached_content_token_count,
        )
        if "usage_metadata" in answer
        else None,
    )


def _parts(parts: Any) -> Iterator[Part]:
    for part in parts:
        if part.text:
            yield Part(text=part.text)
        if "function_call" in part:
            call = type(part.function_call).to_dict(part.function_call)
            arguments = _integers(call.get("args") or {})
            yield Part(call=FunctionCall(call["name"], arguments, call.get("id") or None))
        if part.inline_data.data:
            yield Part(data=bytes(part.inline_data.data), mime_type=part.inline_data.mime_type or None)


def _integers(value: Any) -> Any:
    """The same with whole numbers as integers: the library's messages know floats only."""
    if isinstance(value, dict):
        return {name: _integers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _word(value: Any) -> str | None:
    """The protocol's word of an enumeration; none for "unspecified", and for words that are newer than the library."""
    name = str(getattr(value, "name", ""))
    return None if not name or name.endswith("_UNSPECIFIED") else name


def _model(model: Any) -> RemoteModel:
    return RemoteModel(
        name=model.name.removeprefix("models/"),
        display_name=model.display_name or None,
        description=model.description or None,
        version=model.version or None,
        input_token_limit=model.input_token_limit or None,
        output_token_limit=model.output_token_limit or None,
        methods=tuple(model.supported_generation_methods),
        temperature=model.temperature,
        max_temperature=model.max_temperature,
        top_p=model.top_p,
        top_k=model.top_k,
    )
