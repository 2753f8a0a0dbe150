"""What goes into the engine and what comes out of it: values only, no engine."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lollms_kernel.types import TokenProbability

from .parameters import Sampling

StopReason = Literal["eos", "word", "limit", "context", "grammar"]
"""Why an answer ended: the model ended it, a stop string, a limit, no room left, or a grammar that is complete."""


class MediaRun(msgspec.Struct, frozen=True):
    """A picture or sound within a prompt: it takes the place of `length` tokens from `start` on.

    `chunk` is the engine's own handle; `positions` is how far the tokens after it are moved on.
    """

    start: int
    length: int
    positions: int
    chunk: Any


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One generation. `tokens` is the prompt, at least one and fewer than fit into the context."""

    tokens: list[int]
    sampling: Sampling
    tenant: str = ""
    public: int = 0
    """Leading tokens that depend on the operator's configuration only."""
    grammar: str | None = None
    want_tokens: bool = False
    adapters: tuple[tuple[int, float], ...] = ()
    """(id, scale) of the LoRA adapters in force."""
    media: tuple[MediaRun, ...] = ()


class Piece(msgspec.Struct, frozen=True):
    """Text that can be shown now, with the tokens that made it where those are wanted."""

    text: str
    tokens: tuple[int, ...] = ()
    probabilities: tuple[TokenProbability, ...] = ()


class Reading(msgspec.Struct, frozen=True):
    """How far the prompt has been read."""

    processed: int
    total: int
    cached: int
    milliseconds: float


class Answer(msgspec.Struct, frozen=True):
    """Why a generation ended, how many tokens it took (the one that ends an answer counts), and the stop string."""

    reason: StopReason
    tokens: int
    stop_text: str | None = None
    has_new_line: bool = False
    truncated: bool = False


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a generation went, with counts and seconds."""

    answer: Answer
    slot: int
    seed: int
    prompt_tokens: int
    cached_tokens: int
    tokens_in_cache: int
    """What the sequence held in the end: all but the last token."""
    queue_seconds: float
    prompt_seconds: float
    """From the beginning of the work to the first token."""
    generate_seconds: float
    """From the first token to the last."""
    drafted: int = 0
    drafts_accepted: int = 0
    parked: int = 0
    """How often the work had to make room for others and began again."""
