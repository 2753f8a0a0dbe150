"""The LoLLMs REST protocol: listings, token counts and generation, whole or as server-sent events."""

from __future__ import annotations

from .transport import RestTransport

__all__ = ["RestTransport"]
