"""What happens when memory runs out: a clear error, and everything that was held goes back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .exhaustion import out_of_memory


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


@contextmanager
def frees_on_exhaustion(what: str) -> Iterator[None]:
    """Turn an exhausted memory inside into OutOfMemory, after what the failed work held was freed."""
    ran_out = False
    try:
        yield
    except Exception as error:
        if not is_exhaustion(error):
            raise
        ran_out = True
    if ran_out:  # outside of the except block: there the traceback still holds every tensor
        give_back()
        raise out_of_memory(what)
