"""What the name of a model tells about its size, and how much memory it then needs.

The listing of a hub has no sizes, so clients that show hundreds of models live on their names, as the original does.
"""

from __future__ import annotations

import math
import re

DEFAULT = "8B"
_EXPERTS = re.compile(r"\d+x\d+\.?\d*(m|b|t|q)", re.IGNORECASE)
_SIZE = re.compile(r"\d+\.?\d*(m|b|t|q)", re.IGNORECASE)
_NAMED = (
    ("phi-1", "1.3B"),
    ("phi-2", "2.8B"),
    ("phi-3", "3.8B"),
    ("openchat", "7B"),
    ("garrulus", "7B"),
    ("medicine", "7B"),
)
_BILLIONS = {"M": 1e-3, "B": 1.0, "T": 1e3, "Q": 1e6}
_SPLIT = re.compile(r"split|-\d+-of-\d+", re.IGNORECASE)


def is_split(file: str) -> bool:
    """Whether a file is a part of a model."""
    return _SPLIT.search(file) is not None


def size_of(name: str) -> str:
    """`8x7B`, `13B`, `500M`, by a model's name; `8B` where it tells nothing."""
    for pattern in (_EXPERTS, _SIZE):
        found = pattern.search(name)
        if found is not None:
            return found[0][:-1] + found[0][-1].upper()
    folded = name.casefold()
    return next((size for part, size in _NAMED if part in folded), DEFAULT)


def parameters_of(size: str) -> float:
    """Billions of weights of a size such as `8x7B`."""
    count, unit = size[:-1], size[-1]
    experts, _, each = count.rpartition("x")
    return float(each) * (int(experts) if experts else 1) * _BILLIONS[unit]


def bits_of(quantization: str) -> float | None:
    """Bits of a weight: the first number in a quantization's name; None where it cannot be that."""
    found = re.search(r"\d+", quantization)
    if found is None or not 1 <= int(found[0]) <= 32:
        return None
    return 1.58 if int(found[0]) == 1 else float(found[0])


def memory_needed(size: str, bits: float | None) -> int:
    """MiB that the weights take; -1 where the bits are not known."""
    return -1 if bits is None else math.ceil(parameters_of(size) * bits / 8 * 1024)


def quantization_name(quantization: str) -> str:
    """`Q4_K_M` → `4 K M`, `Q4_0` → `4.0`, `F16` → `FP16`."""
    plain = re.fullmatch(r"(B?F)P?(\d+)", quantization)
    if plain is not None:
        return f"FP{plain[2]}" if plain[1] == "F" else quantization
    bare = re.sub(r"^[A-Z]+", "", quantization)
    return re.sub(r"_(?=\d)", ".", bare).replace("_", " ")
