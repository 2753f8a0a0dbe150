"""What goes into the engine and what comes out beside the text: values only, no engine."""

from __future__ import annotations

from typing import Literal

import msgspec

from .parameters import Sampling


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One generation. `tokens` is the prompt, at least one and fewer than fit into the context."""

    tokens: list[int]
    sampling: Sampling
    tenant: str = ""


class Answer(msgspec.Struct, frozen=True):
    """Why a generation ended, how many tokens it took (the one that ends an answer counts), and the stop string."""

    reason: Literal["stop", "length", "context"]
    tokens: int
    stop_text: str | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a generation went, with counts and seconds."""

    answer: Answer
    seed: int
    prompt_tokens: int
    cached_tokens: int
    prompt_seconds: float
    generate_seconds: float
