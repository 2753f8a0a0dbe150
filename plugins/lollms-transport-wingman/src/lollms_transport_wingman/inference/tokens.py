"""`/tokenize`, `/detokenize` and `/apply-template`."""

from __future__ import annotations

from typing import Any

from lollms_kernel.contracts import AppliesTemplate, TellsPieces, Tokenizes
from lollms_kernel.errors import InvalidRequest, NotSupported
from lollms_kernel.types import TemplateOptions

from .call import Call
from .chat import template_parameters
from .constraints import read_tools
from .fields import INT32, as_integer, wrong
from .messages import read_messages, turns_of
from .prompts import read_parts
from .target import Target, choose, fetches_images

MAX_TOKENS = 1 << 22
MAX_PIECES = 8192
"""Tokens whose pieces are told, each by a call of its own."""


async def tokenize(call: Call) -> None:
    """Token ids of `content`, with their pieces where asked."""
    fields = await call.json()
    target = await choose(call, fields)
    binding = tokenizer(target)
    add_special, with_pieces = fields.flag("add_special"), fields.flag("with_pieces")
    fields.flag("parse_special")  # the tokenizers of bindings always know special tokens written in a text
    content = fields.get("content")
    if content is None:
        await call.send_json({"tokens": []})
        return
    if isinstance(content, str):
        content = [content]
    if not isinstance(content, list):
        raise wrong("content", "a string, or a list of strings and token ids", content)
    tokens: list[int] = []
    for number, part in enumerate(read_parts(content, "content")):
        if isinstance(part, int):
            tokens.append(part)
        else:
            tokens += await binding.tokenize(part, target.model, add_special and number == 0, False)
    if not with_pieces:
        await call.send_json({"tokens": tokens})
        return
    if len(tokens) > MAX_PIECES:
        raise InvalidRequest(f"`with_pieces` is answered for at most {MAX_PIECES} tokens.")
    pieces = await _pieces(target, tokens)
    told = [{"id": token, "piece": piece} for token, piece in zip(tokens, pieces, strict=True)]
    await call.send_json({"tokens": told})


async def _pieces(target: Target, tokens: list[int]) -> list[str | list[int]]:
    """The text of each token, or its bytes where they are no text by themselves."""
    binding = target.binding
    if isinstance(binding, TellsPieces):
        return [_shown(piece) for piece in await binding.token_pieces(tokens, target.model)]
    return [await tokenizer(target).detokenize([token], target.model) for token in tokens]


def _shown(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


async def detokenize(call: Call) -> None:
    """The text of `tokens`."""
    fields = await call.json()
    target = await choose(call, fields)
    binding = tokenizer(target)
    tokens = fields.get("tokens")
    if tokens is None:
        await call.send_json({"content": ""})
        return
    if not isinstance(tokens, list) or len(tokens) > MAX_TOKENS:
        raise wrong("tokens", "a list of token ids", tokens)
    ids = [as_integer("tokens", token, 0, INT32) for token in tokens]
    await call.send_json({"content": await binding.detokenize(ids, target.model) if ids else ""})


def tokenizer(target: Target) -> Tokenizes:
    """The target's tokenizer. Raises NotSupported."""
    if not isinstance(target.binding, Tokenizes):
        raise NotSupported(f"Binding instance '{target.instance}' has no tokenizer that tells token ids.")
    return target.binding


async def apply_template(call: Call) -> None:
    """The prompt that the chat template makes of `messages`."""
    fields = await call.json()
    target = await choose(call, fields)
    binding = target.binding
    if not isinstance(binding, AppliesTemplate):
        raise NotSupported(f"Binding instance '{target.instance}' does not tell its chat template.")
    conversation = read_messages(fields.get("messages"), fetches=fetches_images(binding))
    told: dict[str, Any] = template_parameters(fields)
    if told.get("add_generation_prompt") and told.get("continue_final_message"):
        raise InvalidRequest("add_generation_prompt and continue_final_message cannot be both true.")
    options = TemplateOptions(
        tools=read_tools(fields.get("tools")),
        add_generation_prompt=told.get("add_generation_prompt", not conversation.is_prefilled),
        continue_final_message=told.get("continue_final_message", conversation.is_prefilled),
        kwargs=told.get("chat_template_kwargs", {}),
    )
    prompt = await binding.apply_template(list(turns_of(conversation)), target.model, options)
    await call.send_json({"prompt": prompt})
