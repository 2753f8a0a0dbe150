"""Cuts the candidates of a large vocabulary down to those that llama.cpp's samplers could choose from.

A chain whose first active step is top-k keeps the k tokens with the largest logits, whatever stands before it changes
only a few known tokens (penalties, DRY, biases). So those few and enough of the largest others give the same result
as the whole vocabulary, and finding them takes numpy a fraction of what the chain takes to look at everything.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
SMALL = 4096
"""Up to so many tokens the chain is as quick with all of them."""
_ROWS = 64


class Candidates:
    """Tokens with their logits, as llama.cpp's samplers take them."""

    def __init__(self, ids: Any, logits: Any) -> None:
        self._entries = np.empty(len(ids), CANDIDATE)
        self._entries["id"] = ids
        self._entries["logit"] = logits
        self._entries["p"] = 0
        self._ids = ids
        data = self._entries.ctypes.data_as(ctypes.POINTER(llama.llama_token_data))
        self.native = llama.llama_token_data_array(data=data, size=len(ids), selected=-1, sorted=False)

    def bias(self, biases: Iterable[tuple[int, float]]) -> None:
        """Add to the logits of tokens, one after the other."""
        logits = self._entries["logit"]
        for token, bias in biases:
            at = int(np.searchsorted(self._ids, token))
            if at < len(self._ids) and self._ids[at] == token:
                logits[at] += np.float32(bias)

    def apply(self, sampler: Any) -> None:
        """Let a sampler (or a chain of them) work on the candidates."""
        llama.llama_sampler_apply(sampler, ctypes.byref(self.native))

    @property
    def allowed(self) -> int:
        """How many are not ruled out."""
        return int(np.count_nonzero(np.isfinite(self._entries["logit"])))

    @property
    def selected(self) -> int:
        """The token that was chosen; -1 if none was."""
        at = self.native.selected
        return int(self.native.data[at].id) if 0 <= at < self.native.size else -1

    def probabilities(self) -> list[tuple[int, float]]:
        """(token, probability) of what the samplers left, the likeliest first."""
        left = [(self.native.data[at].id, self.native.data[at].p) for at in range(self.native.size)]
        return sorted(left, key=lambda entry: -entry[1])


def everything(logits: Any) -> Candidates:
    """All tokens."""
    return Candidates(np.arange(len(logits), dtype=np.int32), logits)


def largest(logits: Any, count: int, others: Iterable[int] = ()) -> Candidates | None:
    """The `count` tokens with the largest logits, perhaps some more, and `others`.

    None where cutting could change what is chosen: if two of them have the same logit, the order in which a sampler
    meets them counts, or if there is little to cut.
    """
    size = len(logits)
    width = size // _ROWS
    if size <= SMALL or count * 4 > width:
        return None
    pool = np.concatenate(
        (logits[: _ROWS * width].reshape(_ROWS, width).max(axis=0), logits[_ROWS * width :])
    )
    place = len(pool) - count
    threshold = np.partition(pool, place)[place]  # at least `count` logits are as large as this
    ids = np.flatnonzero(logits >= threshold).astype(np.int32)
    if len(ids) < count:
        return None  # some logits are no numbers
    values = np.sort(logits[ids])[::-1][: count + 1]
    extra = np.fromiter(others, np.int32)
    if len(extra):
        ids = np.union1d(ids, extra)
        values = np.sort(logits[ids])
    if (values[1:] == values[:-1]).any():
        return None
    return Candidates(ids, logits[ids])


def log_probabilities(logits: Any, count: int) -> tuple[list[tuple[int, float]], float]:
    """The `count` likeliest tokens with the logarithms of their probabilities, and what to subtract from any logit."""
    values = logits.astype(np.float64)
    top = values.max()
    with np.errstate(invalid="ignore", divide="ignore"):  # logits of a broken model may be no numbers
        total = float(top + np.log(np.exp(values - top).sum()))
    count = min(count, len(values))
    if count <= 0:
        return [], total
    ids = np.argpartition(values, len(values) - count)[len(values) - count :]
    ids = ids[np.argsort(-values[ids], kind="stable")]
    return [(int(token), float(values[token] - total)) for token in ids], total
