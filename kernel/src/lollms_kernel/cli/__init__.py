"""The `lollms` command. Each command is a module of its own, imported when it is called."""

from __future__ import annotations

from .group import main

__all__ = ["main"]
