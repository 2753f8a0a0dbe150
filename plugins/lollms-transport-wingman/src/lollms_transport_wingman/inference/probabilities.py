"""Probabilities of tokens as llama-server and OpenAI show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lollms_kernel.types import TokenProbability

LOWEST = -3.4028234663852886e38
"""What stands for the logarithm of 0."""


def native(entries: Sequence[TokenProbability], *, after_sampling: bool) -> list[dict[str, Any]]:
    """`completion_probabilities`, with the keys `content` and `probs` that old clients look for."""
    return [_native_entry(entry, after_sampling) for entry in entries]


def _native_entry(entry: TokenProbability, after_sampling: bool) -> dict[str, Any]:
    shown = entry.top
    if after_sampling:
        shown = tuple(other for other in entry.top if other.logprob > -math.inf)
    name = "top_probs" if after_sampling else "top_logprobs"
    return {
        **_one(entry, after_sampling),
        name: [_one(other, after_sampling) for other in shown],
        "content": _piece(entry),
        "probs": [{"tok_str": _piece(other), "prob": _probability(other)} for other in shown],
    }


def openai(entries: Sequence[TokenProbability], *, after_sampling: bool = False) -> dict[str, Any]:
    """OpenAI's `logprobs`."""
    name = "top_probs" if after_sampling else "top_logprobs"
    return {
        "content": [
            {**_one(entry, after_sampling), name: [_one(other, after_sampling) for other in entry.top]}
            for entry in entries
        ]
    }


def _one(entry: TokenProbability, after_sampling: bool) -> dict[str, Any]:
    told = {"id": entry.id, "token": _piece(entry), "bytes": list(entry.piece)}
    if after_sampling:
        return {**told, "prob": _probability(entry)}
    return {**told, "logprob": entry.logprob if math.isfinite(entry.logprob) else LOWEST}


def _piece(entry: TokenProbability) -> str:
    return entry.piece.decode("utf-8", "replace")


def _probability(entry: TokenProbability) -> float:
    return math.exp(min(entry.logprob, 0.0))
