"""For annotations only: what scripts get at run time are objects with the same methods."""

from __future__ import annotations


class ResourceManager:
    """A name for annotations."""
