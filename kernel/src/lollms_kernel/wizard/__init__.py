"""Sets a server up: presets, questions about them, checks of services, and a draft of the files."""

from __future__ import annotations

from .plan import Answers, fill
from .presets import PRESETS, Part, Preset, find_preset

__all__ = ["PRESETS", "Answers", "Part", "Preset", "fill", "find_preset"]
