"""`/embedding`, `/embeddings` and `/v1/embeddings`."""

from __future__ import annotations

import array
import base64
import sys
from typing import Any

from lollms_kernel.contracts import Embeds, EmbedsInputs, Tokenizes
from lollms_kernel.errors import InvalidRequest, NotSupported
from lollms_kernel.types import Embedding, EmbeddingOptions

from .call import Call
from .fields import Fields
from .prompts import Prompt, read_prompts
from .target import Target, choose

MAX_INPUTS = 2048


async def native_embeddings(call: Call) -> None:
    """`[{"index", "embedding": [[…]]}]`; OpenAI's object for a pooled `input`, as older versions had it."""
    fields = await call.json()
    found, target, _ = await _embed(call, fields)
    by_content = "content" in fields
    pooled = all(len(embedding.vectors) == 1 for embedding in found)
    if by_content or not pooled or call.scope["path"].endswith("/embedding"):
        await call.send_json(
            [{"index": number, "embedding": embedding.vectors} for number, embedding in enumerate(found)]
        )
        return
    await call.send_json(_openai_object(found, target, fields))


async def openai_embeddings(call: Call) -> None:
    """OpenAI's object, floats or base64."""
    fields = await call.json()
    found, target, is_pooled = await _embed(call, fields)
    if not is_pooled:
        raise InvalidRequest("Pooling type 'none' is not OAI compatible. Please use a different pooling type")
    await call.send_json(_openai_object(found, target, fields))


def _openai_object(found: list[Embedding], target: Target, fields: Fields) -> dict[str, Any]:
    as_base64 = fields.get("encoding_format") == "base64"
    data = []
    for number, embedding in enumerate(found):
        vector = embedding.vectors[0] if embedding.vectors else []
        entry: dict[str, Any] = {"object": "embedding", "index": number}
        entry["embedding"] = _base64(vector) if as_base64 else vector
        if as_base64:
            entry["encoding_format"] = "base64"
        data.append(entry)
    tokens = sum(embedding.tokens for embedding in found)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": target.shown, "usage": usage, "data": data}


async def _embed(call: Call, fields: Fields) -> tuple[list[Embedding], Target, bool]:
    """The embeddings of a body's inputs, who made them, and whether there is one vector for each."""
    name = "input" if "input" in fields else "content"
    if name not in fields:
        raise InvalidRequest('"input" or "content" must be provided')
    fields.choice("encoding_format", ("float", "base64"))
    prompts, _ = read_prompts(_texts_of(fields.get(name)), name)
    normalize = fields.integer("embd_normalize", -1, 1000)
    options = EmbeddingOptions(
        normalize=2 if normalize is None else normalize,
        dimensions=fields.integer("dimensions", 1, 1 << 20),
        tenant=call.tenant,
    )
    target = await choose(call, fields)
    found = await _vectors(target, prompts, options)
    return found, target, all(len(embedding.vectors) == 1 for embedding in found) or not found


def _texts_of(value: object) -> object:
    """Inputs may be objects with their text under `content` or `prompt`, as clients of older versions send them."""
    if isinstance(value, list):
        if len(value) > MAX_INPUTS:
            raise InvalidRequest(f"At most {MAX_INPUTS} inputs are taken at once.")
        return [_text_of(item) for item in value]
    return _text_of(value)


def _text_of(value: object) -> object:
    if isinstance(value, dict) and "prompt_string" not in value:
        for name in ("content", "prompt", "text"):
            if name in value:
                return value[name]
    return value


async def _vectors(target: Target, prompts: list[Prompt], options: EmbeddingOptions) -> list[Embedding]:
    binding = target.binding
    if any(prompt.media for prompt in prompts):
        raise NotSupported(f"Binding instance '{target.instance}' embeds text only.")
    if isinstance(binding, EmbedsInputs):
        inputs: list[list[int | str]] = [
            list(prompt.parts) if prompt.parts is not None else [prompt.text or ""] for prompt in prompts
        ]
        return await binding.embed_inputs(inputs, target.model, options)
    if not isinstance(binding, Embeds):
        raise NotSupported(
            f"Binding instance '{target.instance}' makes no embeddings.",
            hint="Name an instance or model that does as `model`.",
        )
    texts = [await _as_text(prompt, target) for prompt in prompts]
    vectors = await binding.embed(texts, target.model)
    return [
        Embedding(vectors=[_shortened(vector, options)], tokens=await _size(text, target))
        for text, vector in zip(texts, vectors, strict=True)
    ]


async def _as_text(prompt: Prompt, target: Target) -> str:
    if prompt.parts is None:
        return prompt.text or ""
    if not isinstance(target.binding, Tokenizes):
        raise NotSupported(f"Binding instance '{target.instance}' embeds texts, not token ids.")
    pieces = [
        part if isinstance(part, str) else await target.binding.detokenize([part], target.model)
        for part in prompt.parts
    ]
    return "".join(pieces)


async def _size(text: str, target: Target) -> int:
    if isinstance(target.binding, Tokenizes):
        return len(await target.binding.tokenize(text, target.model, False, False))
    return 0


def _shortened(vector: list[float], options: EmbeddingOptions) -> list[float]:
    """The first dimensions, normalised as asked: services give vectors of full length."""
    if options.dimensions is not None:
        vector = vector[: options.dimensions]
    if options.normalize < 0 or not vector:
        return vector
    if options.normalize == 0:
        norm = max(map(abs, vector))
    else:
        norm = sum(abs(value) ** options.normalize for value in vector) ** (1 / options.normalize)
    return [value / norm for value in vector] if norm > 0 else vector


def _base64(vector: list[float]) -> str:
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
