"""What a GGUF file says about itself; the kernel reads it, since listings need it too."""

from __future__ import annotations

from lollms_kernel.gguf_header import (
    FILE_TYPES,
    MAX_HEADER,
    GgufError,
    GgufHeader,
    read_header,
)

__all__ = [
    "FILE_TYPES",
    "MAX_HEADER",
    "GgufError",
    "GgufHeader",
    "read_header",
]
