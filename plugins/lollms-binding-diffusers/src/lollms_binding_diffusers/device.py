"""Where a model runs and how precisely: chosen from the settings, the machine and the memory that is free."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lollms_kernel.errors import ModelLoadFailed
from lollms_kernel.free_memory import free_memory
from lollms_kernel.processors import physical_cores

from .settings import DiffusersSettings

Placement = Literal["device", "model_offload", "sequential_offload"]

SMALL_MODEL = 100 * 10**6
"""Bytes of weights below which one thread is as fast as several: handing work over costs more than the work."""
ROOM = 1.35
"""A model needs this times its weights, for what it computes on the way."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is run; it goes into model information and metadata, so that nobody has to guess."""

    device: str
    dtype: str
    threads: int
    placement: Placement = "device"
    attention_slicing: bool = False


def halves(torch: Any, settings: DiffusersSettings) -> bool:
    """Whether models are computed in half precision. Raises ModelLoadFailed as `choose`."""
    return _dtype(torch, settings, _device(torch, settings.device)) != "float32"


def choose(torch: Any, settings: DiffusersSettings, weights: int, largest: int) -> Choice:
    """How to run a model whose weights take `weights` bytes in single precision, those of its largest part `largest`.

    Raises ModelLoadFailed where the wanted device is not there.
    """
    device = _device(torch, settings.device)
    dtype = _dtype(torch, settings, device)
    threads = settings.threads or automatic_threads(weights)
    free = int(torch.cuda.mem_get_info()[0]) if device == "cuda" else free_memory()
    halved = 2 if dtype != "float32" else 1
    placement, sliced = place(device, free, weights // halved, largest // halved)
    return Choice(device=device, dtype=dtype, threads=threads, placement=placement, attention_slicing=sliced)


def place(device: str, free: int | None, weights: int, largest: int) -> tuple[Placement, bool]:
    """Where the weights lie, and whether attention is computed in slices, for `free` bytes of the device."""
    if free is None or weights * ROOM <= free:
        return "device", free is not None and weights * 2 * ROOM > free
    if device != "cuda":
        return "device", True  # there is no other memory to go to
    if largest * ROOM <= free:
        return "model_offload", True
    return "sequential_offload", True


def automatic_threads(weights: int) -> int:
    """One thread for a small model, else one for each physical core that this process may use."""
    return 1 if weights < SMALL_MODEL else physical_cores()


def _device(torch: Any, wanted: str) -> str:
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if wanted == "auto":
        return next(name for name, is_there in there.items() if is_there())
    if not there[wanted]():
        raise ModelLoadFailed(
            f"The setting `device` says '{wanted}', which torch {torch.__version__} does not find here.",
            hint="Use `device: auto`, or install the torch build for this GPU (https://pytorch.org/get-started).",
        )
    return wanted


def _dtype(torch: Any, settings: DiffusersSettings, device: str) -> str:
    if settings.use_bf16 and (device == "cpu" or (device == "cuda" and torch.cuda.is_bf16_supported())):
        return "bfloat16"
    return "float16" if settings.use_fp16 and device != "cpu" else "float32"
