"""Text to tokens and back, by the tokenizer of a binding's model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from ..bodies import read_body
from ..contracts import Binding, CountsTokens, Kernel, Tokenizes
from ..errors import InvalidRequest, NotSupported
from .wire import (
    CountTokensAnswer,
    DetokenizeAnswer,
    DetokenizeBody,
    TokenizeAnswer,
    TokenizeBody,
)

T = TypeVar("T", bound=msgspec.Struct)
TheKernel = NamedDependency[SkipValidation[Kernel]]
AnyRequest = Request[Any, Any, Any]


@post(
    "/tokenize",
    status_code=200,
    summary="Tell the tokens of a text",
    opt={"body": TokenizeBody},
    tags=["Tokens"],
)
async def tokenize(kernel: TheKernel, request: AnyRequest) -> TokenizeAnswer:
    """By the tokenizer of the named or the default text binding."""
    asked = await _read(request, TokenizeBody)
    with _asked_binding(kernel, asked.binding_name, "tokenization") as binding:
        tokens = await _tokens(binding, asked)
    return TokenizeAnswer(tokens, len(tokens))


@post(
    "/detokenize",
    status_code=200,
    summary="Tell the text of tokens",
    opt={"body": DetokenizeBody},
    tags=["Tokens"],
)
async def detokenize(kernel: TheKernel, request: AnyRequest) -> DetokenizeAnswer:
    """By the tokenizer of the named or the default text binding."""
    asked = await _read(request, DetokenizeBody)
    with _asked_binding(kernel, asked.binding_name, "detokenization") as binding:
        text = await _tokenizer(binding).detokenize(asked.tokens, asked.model_name or None)
    return DetokenizeAnswer(text)


@post(
    "/count_tokens",
    status_code=200,
    summary="Count the tokens of a text",
    opt={"body": TokenizeBody},
    tags=["Tokens"],
)
async def count_tokens(kernel: TheKernel, request: AnyRequest) -> CountTokensAnswer:
    """By the named or the default text binding. One that only counts, as some services do, adds no begin or end."""
    asked = await _read(request, TokenizeBody)
    with _asked_binding(kernel, asked.binding_name, "tokenization required for counting") as binding:
        if isinstance(binding, CountsTokens) and not isinstance(binding, Tokenizes):
            return CountTokensAnswer(await binding.count_tokens(asked.text, asked.model_name or None))
        return CountTokensAnswer(len(await _tokens(binding, asked)))


async def _read(request: AnyRequest, kind: type[T]) -> T:
    return await asyncio.to_thread(read_body, await request.body(), kind)


async def _tokens(binding: Binding, asked: TokenizeBody) -> list[int]:
    return await _tokenizer(binding).tokenize(
        asked.text, asked.model_name or None, asked.add_bos, asked.add_eos
    )


def _tokenizer(binding: Binding) -> Tokenizes:
    if not isinstance(binding, Tokenizes):
        raise NotSupported("It has no tokenizer.")
    return binding


@contextmanager
def _asked_binding(kernel: Kernel, name: str | None, what: str) -> Iterator[Binding]:
    """The binding to ask; whether it cannot is known at once or only from its engine, and said in the same words."""
    name = name or kernel.default_binding("ttt")
    if name is None:
        raise InvalidRequest(
            "No binding instance specified or configured.",
            hint="Name one as binding_name, or set defaults.ttt_binding.",
        )
    try:
        yield kernel.binding(name)
    except NotSupported as error:
        raise NotSupported(f"Binding instance '{name}' does not support {what}.", hint=error.hint) from error
