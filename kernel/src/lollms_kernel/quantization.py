"""Which quantization a file name tells, and which files of a repository make one model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_QUANTIZATION = re.compile(
    r"(?:^|[-_. ])((?:UD-)?(?:I?Q\d\w*|T?Q\d_\d|MXFP4(?:_\w+)?|NVFP4|BF16|FP16|F16|FP32|F32|FP8))$",
    re.IGNORECASE,
)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")

PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q4_1", "Q5_K_S", "Q5_0", "Q6_K", "Q8_0")
"""What is taken where nobody says: small enough for most machines, good enough for most uses."""


def quantization_of(file: str) -> str | None:
    """The quantization in a GGUF file's name, in capitals; None if it tells none.

    `Llama-3-8B-Q4_K_M.gguf` → `Q4_K_M`, `qwen-7b-f16.gguf` → `F16`, `x.IQ3_XXS-00001-of-00002.gguf` → `IQ3_XXS`.
    """
    if not file.lower().endswith(".gguf"):
        return None
    found = _QUANTIZATION.search(_SHARD.sub("", file.rpartition("/")[2][: -len(".gguf")]))
    return None if found is None else found[1].upper().removeprefix("UD-")


def is_model(file: str) -> bool:
    """Whether a file of a repository is a model by its name, and no projector of one."""
    name = file.rpartition("/")[2].lower()
    return name.endswith(".gguf") and "mmproj" not in name and "imatrix" not in name


def shards_of(file: str, files: Iterable[str]) -> list[str]:
    """The files that belong to `file`, in order; itself alone unless it is one of several parts."""
    stem = file[: -len(".gguf")] if file.lower().endswith(".gguf") else file
    part = _SHARD.search(stem)
    if part is None:
        return [file]
    start = stem[: part.start()]
    same = re.compile(re.escape(start) + rf"-\d{{5}}-of-{part[2]}\.gguf", re.IGNORECASE)
    return sorted(name for name in files if same.fullmatch(name)) or [file]


def choose(files: Sequence[str], quantization: str | None) -> list[str]:
    """The files of the model with this quantization, by default the first of `PREFERRED`; [] if there is none."""
    models = sorted((file for file in files if is_model(file)), key=lambda name: (name.count("/"), name))
    by_kind: dict[str | None, str] = {}
    for file in models:
        by_kind.setdefault(quantization_of(file), file)
    if quantization is not None:
        wanted = [quantization]
    else:
        wanted = [*PREFERRED, *(kind for kind in by_kind if kind is not None)]
    for kind in wanted:
        if kind in by_kind:
            return shards_of(by_kind[kind], models)
    return shards_of(models[0], models) if models and quantization is None else []


def offered(files: Iterable[str]) -> list[str]:
    """The quantizations of a repository's models."""
    kinds = {quantization_of(file) for file in files if is_model(file)}
    return sorted(kind for kind in kinds if kind is not None)
