"""Has the speaker finished? Detectors that tell it from the words, and a route that exposes the one in use."""

from __future__ import annotations

from .create import create_detector
from .detector import DetectorSettings, Turn, TurnDetector
from .judge import Judge, Verdict
from .route import turn_detection_route

__all__ = [
    "DetectorSettings",
    "Judge",
    "Turn",
    "TurnDetector",
    "Verdict",
    "create_detector",
    "turn_detection_route",
]
