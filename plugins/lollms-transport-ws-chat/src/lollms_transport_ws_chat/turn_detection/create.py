"""From settings to a detector, with everything that can be checked before a model is loaded."""

from __future__ import annotations

import logging
from pathlib import Path

from lollms_kernel.errors import ConfigError

from .detector import SEED_THRESHOLD, DetectorSettings, TurnDetector
from .embedded import EmbeddedDetector
from .fixed import AlwaysComplete, NeverComplete
from .folder import FolderDetector, check_folder
from .punctuation import PunctuationDetector
from .rule import RuleDetector

logger = logging.getLogger(__name__)

_WORDS_ALONE: dict[str, type[TurnDetector]] = {
    kind.name: kind for kind in (RuleDetector, PunctuationDetector, AlwaysComplete, NeverComplete)
}
TINY = 0.05
"""A threshold below this suits models of the folder layout, whose probabilities are small, and no other detector."""


def create_detector(settings: DetectorSettings, root: Path) -> TurnDetector:
    """The detector that the settings name; its model is loaded at the first use.

    Raises ConfigError with the cure. A threshold that does not suit the detector is told in the log.
    """
    threshold = None if settings.threshold == "auto" else settings.threshold
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(
            f"The turn detector's threshold is {threshold}, which is no probability.",
            hint="Give a number from 0 to 1, or auto for what suits the detector.",
        )
    _warn_of_wrong_pairing(settings.name, threshold, settings.folder)
    if settings.name == "embedded":
        return EmbeddedDetector(threshold)
    if settings.name == "folder":
        if not settings.folder:
            raise ConfigError(
                "The turn detector `folder` needs a folder with a model, and none is set.",
                hint="Set turn_detector_folder, or choose the detector `embedded`.",
            )
        return FolderDetector(check_folder(root / Path(settings.folder).expanduser()), threshold)
    if settings.name not in _WORDS_ALONE:
        raise ConfigError(
            f"There is no turn detector '{settings.name}'.",
            hint=f"Choose one of embedded, folder, {', '.join(_WORDS_ALONE)}.",
        )
    return _WORDS_ALONE[settings.name](threshold)


def _warn_of_wrong_pairing(name: str, threshold: float | None, folder: str | None) -> None:
    if threshold is not None and threshold < TINY and name in ("embedded", "rule"):
        logger.warning(
            "A turn detection threshold of %g suits models of the folder layout (the original server used %g): "
            "with the detector `%s` nearly every unfinished turn counts as complete. Set it to auto.",
            threshold,
            SEED_THRESHOLD,
            name,
        )
    if threshold is not None and threshold >= 0.5 and name == "folder":
        logger.warning(
            "A turn detection threshold of %g is far above what models of the folder layout reach: with the detector "
            "`folder` nearly every turn waits for silence. Set it to auto.",
            threshold,
        )
    if folder and name != "folder":
        logger.warning("The turn detector `%s` does not use the folder that is set.", name)
