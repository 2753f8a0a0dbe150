"""The files of weights that a model is loaded from, told by their names. A part may lie there in two precisions."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

HALF: Final = "fp16"
"""What files of half precision are called."""
PICKLED: Final = (".ckpt", ".bin", ".pt", ".pth", ".pkl")

_PIECE = r"-\d+-of-\d+"
_NAME = re.compile(
    rf"(?:diffusion_pytorch_model|model)(?:\.(\w+))?(?:{_PIECE})?(?:\.(\w+))?\.safetensors"
)  # the precision comes before the number of the piece, in older folders after it
_MAX_HEADER: Final = 100 << 20
_FLOAT32: Final = 4


def choose_weights(
    names: Iterable[str], parts: Collection[str], *, half: bool
) -> tuple[str | None, list[str]]:
    """The variant to load (None: the files without one), and which of the files `names` that takes.

    `parts` are folders of the model, `half` whether half precision is preferred where there are both.
    """
    whole: dict[str, list[str]] = {}
    halved: dict[str, list[str]] = {}
    for name in sorted(names):
        part, _, file = name.rpartition("/")
        found = _NAME.fullmatch(file)
        if found is None or (part and part not in parts):
            continue
        variant = found[1] or found[2]
        if variant in (None, HALF):
            (whole if variant is None else halved).setdefault(part, []).append(name)
    variant = HALF if halved.keys() - whole.keys() or (half and halved) else None
    first, second = (halved, whole) if variant else (whole, halved)
    return variant, [name for part in {**whole, **halved} for name in first.get(part) or second[part]]


def float32_bytes(files: Iterable[Path]) -> tuple[int, int]:
    """What weights take up in single precision, however they are stored: all of them, and the largest folder's."""
    folders: dict[Path, int] = {}
    for file in files:
        folders[file.parent] = folders.get(file.parent, 0) + _FLOAT32 * _numbers(file)
    return sum(folders.values()), max(folders.values(), default=0)


def _numbers(file: Path) -> int:
    """How many numbers the tensors of a file have. An unreadable one is counted by its size: loading will refuse it."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = msgspec.json.decode(
                opened.read(min(length, _MAX_HEADER)), type=dict[str, dict[str, Any]]
            )
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return file.stat().st_size // _FLOAT32
