"""The error for a memory that ran out."""

from __future__ import annotations

from lollms_kernel.errors import GenerationFailed


class OutOfMemory(GenerationFailed):
    """There was not enough memory for a model or a picture; what was held has been freed."""

    code = "out_of_memory"
    status = 503


def out_of_memory(doing: str) -> OutOfMemory:
    """The error, for what was being done."""
    return OutOfMemory(
        f"Memory ran out while {doing}; everything was freed.",
        hint="Ask for a smaller size or fewer images at once, close other programs, or use a smaller model.",
    )
