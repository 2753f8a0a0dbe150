"""Printing."""

from __future__ import annotations

from ascii_colors import (  # type: ignore[import-not-found]  # beside this package
    ASCIIColors,
    get_trace_exception,
    trace_exception,
)

__all__ = ["ASCIIColors", "get_trace_exception", "trace_exception"]
