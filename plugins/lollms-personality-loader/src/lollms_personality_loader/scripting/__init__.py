"""Scripted personalities: their programs run in processes of their own and ask the server for what they need."""

from __future__ import annotations

from .runner import FAILED, ScriptRunner

__all__ = ["FAILED", "ScriptRunner"]
