"""Looks at everything that keeps a server from working and says the cure of what is missing.

A binding type may add its own findings with a classmethod

    def doctor_findings(cls) -> Iterable[tuple[level, title, text, cure]]

where `level` is "ok", "warning" or "error" and `cure` may be None. It looks, as `unavailable_reason` does: it must
not import an engine, and it needs no instance.
"""

from __future__ import annotations

from .examine import examine
from .findings import Finding

__all__ = ["Finding", "examine"]
