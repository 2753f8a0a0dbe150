"""Looks at everything that keeps a server from working and says the cure of what is missing.

A binding type may add its own findings with a classmethod `doctor_findings(cls) -> Iterable[Finding]`. It looks,
as `unavailable_reason` does: it must not import an engine, and it needs no instance.
"""

from __future__ import annotations

from .examine import examine
from .findings import Finding

__all__ = ["Finding", "examine"]
