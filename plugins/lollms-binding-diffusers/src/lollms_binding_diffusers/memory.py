"""What happens when memory runs out: a clear error, and everything that was held goes back."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from .exhaustion import out_of_memory

T = TypeVar("T")


def is_exhaustion(error: BaseException) -> bool:
    """Whether this error means that memory ran out: torch has a word for it on GPUs only."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def give_back() -> None:
    """Return what nobody uses any more to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def freeing(what: str, work: Callable[[], T]) -> T:
    """The result of `work`. Raises OutOfMemory where memory runs out, after what the work held was freed."""
    try:
        return work()
    except Exception as error:  # whatever it is goes on, but for an exhausted memory
        if not is_exhaustion(error):
            raise
    # Out of the except block: there, and in the context of a new error, the traceback still holds every tensor.
    give_back()
    raise out_of_memory(what)
