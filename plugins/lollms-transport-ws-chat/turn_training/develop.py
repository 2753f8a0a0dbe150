"""The development set, which may be read and tuned on: figures for choices, and the turns that are judged wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lollms_transport_ws_chat.turn_detection.embedded import EmbeddedDetector

from .evaluate import accuracy, area, false_positives_at, scores, true_negatives, true_positives
from .sets import DEVELOPMENT, read_set

THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)


def develop() -> Iterator[str]:
    """Lines for people."""
    detector = EmbeddedDetector()
    turns = read_set(DEVELOPMENT / "en.txt")
    labels = np.array([turn.complete for turn in turns])
    found = scores(detector, turns, "en")
    yield f"AUC {area(found, labels):.3f}, FPR at TPR 95 % {false_positives_at(0.95)(found, labels, 0):.3f}"
    for threshold in THRESHOLDS:
        figures = (metric(found, labels, threshold) for metric in (accuracy, true_positives, true_negatives))
        yield "{:.2f}: accuracy {:.3f}, TPR {:.3f}, TNR {:.3f}".format(threshold, *figures)
    for turn, probability in zip(turns, found, strict=True):
        if (probability >= detector.threshold) != turn.complete:
            yield f"{'-+'[turn.complete]} {probability:.2f} {turn.text}"
