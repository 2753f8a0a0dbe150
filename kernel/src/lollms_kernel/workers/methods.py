"""The methods of a binding that can be called in a worker, with the types that go over the wire."""

from __future__ import annotations

from typing import Any

import msgspec

from ..contracts import BindingContext
from ..types import (
    Chunk,
    Embedding,
    EmbeddingOptions,
    GenerateRequest,
    Message,
    ModelInfo,
    Ranking,
    TemplateOptions,
)
from .frames import FrameError, from_plain


class Opening(msgspec.Struct, frozen=True):
    """What a worker needs to create and open its binding; secrets travel here and nowhere else."""

    settings: dict[str, Any]
    context: BindingContext
    search_path: tuple[str, ...] = ()
    """Where the server finds modules; folders that the worker does not have are ignored."""


class Method:
    """The types of one method: a tuple of its positional arguments, and its value."""

    def __init__(self, arguments: Any, value: Any = None, *, streams: bool = False) -> None:
        self.streams = streams
        """Whether it is an async generator of chunks."""
        self._arguments = msgspec.msgpack.Decoder(arguments, dec_hook=from_plain)
        self._value = msgspec.msgpack.Decoder(value, dec_hook=from_plain)

    def arguments(self, payload: msgspec.Raw) -> tuple[Any, ...]:
        """The arguments of a call. Raises FrameError."""
        return tuple(_decode(self._arguments, payload))

    def value(self, payload: msgspec.Raw) -> Any:
        """What a call gave. Raises FrameError."""
        return _decode(self._value, payload)


METHODS = {
    "open": Method(tuple[Opening]),
    "close": Method(tuple[()]),
    "list_models": Method(tuple[()], list[ModelInfo]),
    "get_model_info": Method(tuple[str | None], ModelInfo),
    "load": Method(tuple[str]),
    "unload": Method(tuple[()]),
    "tokenize": Method(tuple[str, str | None, bool, bool], list[int]),
    "detokenize": Method(tuple[list[int], str | None], str),
    "token_pieces": Method(tuple[list[int], str | None], list[bytes]),
    "count_tokens": Method(tuple[str, str | None], int),
    "embed": Method(tuple[list[str], str | None], list[list[float]]),
    "embed_inputs": Method(tuple[list[list[int | str]], str | None, EmbeddingOptions], list[Embedding]),
    "rerank": Method(tuple[str, list[str], str | None, str], Ranking),
    "apply_template": Method(tuple[list[Message], str | None, TemplateOptions], str),
    "slots": Method(tuple[str | None], list[dict[str, Any]]),
    "slot_action": Method(tuple[int, str, str | None, str | None, str], dict[str, Any]),
    "adapters": Method(tuple[str | None], list[dict[str, Any]]),
    "set_adapters": Method(tuple[list[tuple[int, float]], str | None]),
    "properties": Method(tuple[str | None], dict[str, Any]),
    "engine_metrics": Method(tuple[str | None], dict[str, float]),
    "generate": Method(tuple[GenerateRequest], streams=True),
}

_chunks = msgspec.msgpack.Decoder(list[Chunk])


def chunks_of(payload: msgspec.Raw) -> list[Chunk]:
    """The chunks of a `Chunks` frame. Raises FrameError."""
    chunks: list[Chunk] = _decode(_chunks, payload)
    return chunks


def _decode(decoder: msgspec.msgpack.Decoder[Any], payload: msgspec.Raw) -> Any:
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from error
