"""Token ids from the engines that give them beside OpenAI's API, each in its own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lollms_kernel.errors import InvalidRequest, NotSupported
from lollms_kernel.upstream import Upstream

from .listing import Engine

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Text(msgspec.Struct):
    content: str | None = None
    """llama-server's name for it."""
    prompt: str | None = None
    """vLLM's."""


class EngineTokens:
    """The tokenizer of one model of llama-server or vLLM."""

    def __init__(
        self,
        client: AsyncOpenAI,
        upstream: Upstream,
        address: Callable[[str], str],
        engine: Engine,
        model: str,
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._address = address
        self._engine = engine
        self._model = model

    async def tokenize(self, text: str, add_bos: bool, add_eos: bool) -> list[int]:
        """The token ids of `text`. Both engines add what the model itself begins with, and never an end."""
        if add_eos:
            raise InvalidRequest("The service cannot add an end token.", hint="Leave out add_eos.")
        body = (
            {"content": text, "add_special": add_bos, "model": self._model}
            if self._engine == "llama-server"
            else {"prompt": text, "add_special_tokens": add_bos, "model": self._model}
        )
        return (await self._ask("/tokenize", body, _Tokens)).tokens

    async def detokenize(self, tokens: list[int]) -> str:
        """The text of token ids."""
        found = await self._ask("/detokenize", {"tokens": tokens, "model": self._model}, _Text)
        return found.content if found.content is not None else found.prompt or ""

    async def _ask(self, path: str, body: dict[str, Any], kind: type[T]) -> T:
        from openai import NotFoundError

        async def ask() -> T:
            try:
                answer = await self._client.post(self._address(path), cast_to=object, body=body)
            except NotFoundError:
                raise NotSupported("The service offers no tokenizer.") from None
            return msgspec.convert(answer, kind)

        return await self._upstream.ask(ask)
