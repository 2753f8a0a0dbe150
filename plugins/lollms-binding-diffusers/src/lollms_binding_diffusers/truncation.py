"""How much of a prompt a model reads: text encoders have a limit, and pipelines cut off what is beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lollms_kernel.types import Notice

from .tasks import accepted

UNLIMITED: Final = 1_000_000
"""Tokenizers that know no limit say a number beyond all use."""
MAX_SHOWN: Final = 300
"""Characters of the lost words that a notice shows."""


def truncations(pipeline: Any, texts: Mapping[str, str]) -> list[Notice]:
    """A notice for each of `texts` (by what it is) and each loss of it; tokenizers that lose the same share one."""
    tokenizers = {
        name: part
        for name, part in pipeline.components.items()
        if name.startswith("tokenizer") and part is not None
    }
    notices = []
    for what, text in texts.items():
        losses: dict[tuple[int, int, str], list[str]] = {}
        whole = []
        for name, tokenizer in tokenizers.items():
            loss = _loss(tokenizer, text, _limit(pipeline, tokenizer))
            if loss is None:
                whole.append(name)
            else:
                losses.setdefault(loss, []).append(name)
        notices += [_notice(what, *loss, names, whole) for loss, names in losses.items()]
    return notices


def _limit(pipeline: Any, tokenizer: Any) -> int:
    """Tokens that the pipeline keeps; CLIP has its own limit, for other encoders the pipeline may have one."""
    own = int(tokenizer.model_max_length)
    if type(tokenizer).__name__.startswith("CLIP"):
        return own
    asked = accepted(pipeline).get("max_sequence_length")
    return asked if isinstance(asked, int) else own


def _loss(tokenizer: Any, text: str, limit: int) -> tuple[int, int, str] | None:
    """Tokens of the text, how many of them are read, and the words that are not; None if all are."""
    if limit >= UNLIMITED:
        return None
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    room = limit - tokenizer.num_special_tokens_to_add()
    if len(tokens) <= room:
        return None
    return len(tokens), room, tokenizer.decode(tokens[room:]).strip()


def _notice(what: str, tokens: int, read: int, lost: str, names: list[str], whole: list[str]) -> Notice:
    shown = lost if len(lost) <= MAX_SHOWN else f"{lost[:MAX_SHOWN]}…"
    rest = f" {', '.join(whole)} reads all of it." if whole else ""
    return Notice(
        "prompt_truncated",
        f"The {what.replace('_', ' ')} has {tokens} tokens, of which the model ({', '.join(names)}) reads {read}; "
        f"it does not read: '{shown}'.{rest}",
        {"text": what, "tokens": tokens, "read": read, "lost": shown, "tokenizers": names},
    )
