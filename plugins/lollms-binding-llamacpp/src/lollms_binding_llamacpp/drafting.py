"""Guesses how an answer goes on: text often repeats what was there before (prompt lookup).

A guess costs little, since it is evaluated together with the token before it, and changes nothing: each of its tokens
counts only if it is the one that would have been chosen anyway.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

LENGTHS = (4, 3, 2)
"""Tokens that have to be the same as before, the longest match first."""
LOOKBACK = 16_384


def draft(tokens: Sequence[int], last: int, most: int) -> list[int]:
    """Up to `most` tokens that came after the last few tokens when those were there before."""
    history = array("i", tokens[-LOOKBACK:])
    history.append(last)
    data = history.tobytes()
    width = history.itemsize
    for length in LENGTHS:
        if len(history) <= length:
            continue
        wanted = data[-length * width :]
        at = data.rfind(wanted, 0, len(data) - width)
        while at >= 0 and at % width:
            at = data.rfind(wanted, 0, at + len(wanted) - 1)
        if at >= 0:
            begin = at // width + length
            return history[begin : begin + most].tolist()
    return []
