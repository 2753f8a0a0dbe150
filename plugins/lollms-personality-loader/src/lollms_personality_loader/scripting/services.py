"""What the process of a script may ask of the server: generations, functions, tokens and facts of models.

Everything is asked on behalf of the request that the script works for: its tenant, its binding, its limits.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Literal

import msgspec

from lollms_kernel.contracts import Binding, CountsTokens, PersonalityContext, Tokenizes
from lollms_kernel.errors import (
    InvalidRequest,
    LollmsError,
    NoBindingConfigured,
    NotSupported,
    RateLimited,
    error_from_code,
)
from lollms_kernel.parameters import normalise
from lollms_kernel.types import (
    Failed,
    Finished,
    GenerateRequest,
    Info,
    Media,
    Message,
    Notice,
    Output,
    Progress,
    TextDelta,
    ThoughtDelta,
    ToolCall,
    Usage,
)


class Turn(msgspec.Struct, frozen=True):
    """A turn of a conversation, from a script."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Item(msgspec.Struct, frozen=True):
    """An input that is not text, from a script."""

    type: str
    role: str
    data: bytes
    mime_type: str | None = None
    metadata: dict[str, Any] = {}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A generation that a script asks for. Null binding and model: those of the request."""

    prompt: str = ""
    turns: list[Turn] = []
    system: str | None = None
    parameters: dict[str, Any] = {}
    media: list[Item] = []
    functions: list[Any] = []
    generation_type: str = "ttt"
    binding: str | None = None
    model: str | None = None


class Services:
    """The handlers for one run. `conditioned` is the request with the personality's conditioning."""

    def __init__(
        self, conditioned: GenerateRequest, context: PersonalityContext, max_generations: int
    ) -> None:
        self._request = conditioned
        self._context = context
        self._left = max_generations
        self._limit = max_generations
        self.usage: Usage | None = None
        """The tokens of all generations so far."""

    def handlers(self) -> Mapping[str, Any]:
        """By the names that the process calls them."""
        return {
            "generate": self.generate,
            "execute_function": self.execute_function,
            "list_functions": self.list_functions,
            "tokenize": self.tokenize,
            "detokenize": self.detokenize,
            "count_tokens": self.count_tokens,
            "model_info": self.model_info,
            "list_models": self.list_models,
            "list_bindings": self.list_bindings,
        }

    async def generate(self, raw: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Stream an answer: `{"text"}`, `{"thought", "end"}`, `{"output"}`, `{"info"}`, `{"call"}`, `{"finished"}`."""
        if self._left <= 0:
            raise RateLimited(
                f"The script has asked for {self._limit} generations, which is all that it may.",
                hint="`scripts.max_generations` sets this limit.",
            )
        self._left -= 1
        request = self._request_of(_convert(raw, Wish))
        async with aclosing(self._context.generate(request)) as chunks:
            async for chunk in chunks:
                match chunk:
                    case TextDelta(text=text):
                        yield {"text": text}
                    case ThoughtDelta():
                        yield {"thought": chunk.text, "end": bool(chunk.end)}
                    case Output():
                        yield {"output": msgspec.structs.asdict(chunk)}
                    case Info(content=content):
                        yield {"info": content}
                    case Progress():
                        yield {"info": chunk.as_info()}
                    case ToolCall():
                        yield {"call": {"id": chunk.id, "name": chunk.name, "arguments": chunk.arguments}}
                    case Finished():
                        self.usage = _sum(self.usage, chunk.usage)
                        yield {"finished": _finished(chunk)}
                    case Failed():
                        raise error_from_code(chunk.code, chunk.message, hint=chunk.hint)
                    case Notice():
                        yield {"notice": chunk.message}

    def _request_of(self, wish: Wish) -> GenerateRequest:
        media = tuple(
            Media(item.type, item.role, item.data, item.mime_type, item.metadata) for item in wish.media
        )
        turns = [Message(turn.role, turn.content) for turn in wish.turns]
        if wish.prompt or media or not turns:
            turns.append(Message("user", wish.prompt, media))
        own = self._request
        same_system = wish.system == own.system
        return msgspec.structs.replace(
            own,
            messages=tuple(turns),
            raw_prompt=None,
            prompt_parts=None,
            infill=None,
            raw_media=(),
            system=wish.system or None,
            public_prefix=own.public_prefix if same_system else 0,
            parameters=normalise(wish.parameters),
            functions=tuple(wish.functions),
            generation_type=wish.generation_type,
            binding=wish.binding or (own.binding if wish.generation_type == own.generation_type else None),
            model=wish.model or (own.model if wish.binding in (None, own.binding) else None),
            personality=None,
        )

    async def execute_function(self, name: str, arguments: dict[str, Any]) -> list[Any]:
        """Whether it went well, and the result or what went wrong, in the words of lollms_server."""
        function = self._context.kernel.functions.get(name)
        if function is None:
            return [False, f"Function '{name}' not found or failed to load."]
        try:
            return [True, _plain(await function.call(arguments))]
        except InvalidRequest as error:
            return [False, error.message.rstrip(".")]
        except LollmsError as error:
            return [False, error.message]

    async def list_functions(self) -> list[dict[str, Any]]:
        """Name, description and schema of each."""
        return [
            {"name": name, "description": function.description, "schema": dict(function.schema)}
            for name, function in sorted(self._context.kernel.functions.items())
        ]

    async def tokenize(self, text: str, add_bos: bool, add_eos: bool, model: str | None) -> list[int]:
        """Token ids."""
        binding = self._binding()
        if not isinstance(binding, Tokenizes):
            raise NotSupported(f"Binding instance '{binding.name}' does not support tokenization.")
        return await binding.tokenize(text, model or self._request.model, add_bos, add_eos)

    async def detokenize(self, tokens: list[int], model: str | None) -> str:
        """Text of token ids."""
        binding = self._binding()
        if not isinstance(binding, Tokenizes):
            raise NotSupported(f"Binding instance '{binding.name}' does not support detokenization.")
        return await binding.detokenize(tokens, model or self._request.model)

    async def count_tokens(self, text: str, model: str | None) -> int:
        """How many tokens a text has."""
        binding = self._binding()
        if isinstance(binding, CountsTokens):
            return await binding.count_tokens(text, model or self._request.model)
        return len(await self.tokenize(text, False, False, model))

    async def model_info(self, model: str | None, name: str | None) -> dict[str, Any]:
        """What is known of a model of an instance."""
        binding = self._binding(name)
        info = await binding.get_model_info(model or (self._request.model if name is None else None))
        return {"binding_instance_name": binding.name, **msgspec.to_builtins(info)}

    async def list_models(self, name: str | None) -> list[dict[str, Any]]:
        """The models of an instance."""
        return [msgspec.to_builtins(info) for info in await self._binding(name).list_models()]

    async def list_bindings(self) -> list[str]:
        """Names of the instances that serve."""
        return [status.name for status in self._context.kernel.instances() if status.state == "ready"]

    def _binding(self, name: str | None = None) -> Binding:
        kernel = self._context.kernel
        chosen = name or self._request.binding or kernel.default_binding("ttt")
        if chosen is None:
            raise NoBindingConfigured("No binding instance specified or configured.")
        return kernel.binding(chosen)


def _finished(chunk: Finished) -> dict[str, Any]:
    usage = chunk.usage
    return {
        "reason": chunk.reason,
        "usage": {**msgspec.structs.asdict(usage), "total_tokens": usage.total_tokens} if usage else None,
        "model": chunk.metadata.get("model"),
    }


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cached_tokens + other.cached_tokens,
    )


def _convert(raw: dict[str, Any], kind: type[Wish]) -> Wish:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The script asks for a generation wrongly: {error}.") from error


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=str)
