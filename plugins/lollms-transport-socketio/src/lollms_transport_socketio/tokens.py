"""Events about tokens and vectors, answered by the chosen binding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lollms_kernel.contracts import Binding, Embeds, Tokenizes
from lollms_kernel.errors import NotSupported

from .choosing import Reply, chosen_binding
from .wire import Text, Tokens, read

if TYPE_CHECKING:
    from .session import Session


async def tokenize(session: Session, payload: Any) -> Reply:
    """The token ids of a text."""
    asked = read(payload, Text)
    binding, model = await _chosen(session)
    return "tokenized", {"tokens": await tokenizer(binding).tokenize(asked.prompt, model, False, False)}


async def detokenize(session: Session, payload: Any) -> Reply:
    """The text of token ids."""
    asked = read(payload, Tokens)
    binding, model = await _chosen(session)
    return "detokenized", {"text": await tokenizer(binding).detokenize(asked.prompt, model)}


async def embed(session: Session, payload: Any) -> Reply:
    """The vector of a text; the event of the answer is spelled as lollms spelled it."""
    asked = read(payload, Text)
    binding, model = await _chosen(session)
    if not isinstance(binding, Embeds):
        raise NotSupported(f"Binding instance '{binding.name}' does not support embeddings.")
    (vector,) = await binding.embed([asked.prompt], model)
    return "embeded", {"text": vector}


def tokenizer(binding: Binding) -> Tokenizes:
    """The binding, as one that has a tokenizer. Raises NotSupported."""
    if not isinstance(binding, Tokenizes):
        raise NotSupported(f"Binding instance '{binding.name}' does not support tokenization.")
    return binding


async def last_tokens(binding: Binding, model: str | None, text: str, count: int) -> str:
    """The end of a text, so many tokens long. Raises NotSupported without a tokenizer."""
    tokens = await tokenizer(binding).tokenize(text, model, False, False)
    if len(tokens) <= count:
        return text
    return await tokenizer(binding).detokenize(tokens[-count:], model)


async def _chosen(session: Session) -> tuple[Binding, str | None]:
    selection = await session.selection()
    return chosen_binding(session.kernel, selection), selection.model
