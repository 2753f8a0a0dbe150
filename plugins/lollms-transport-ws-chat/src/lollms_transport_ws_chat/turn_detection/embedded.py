"""The embedded detector: a small network over the last words of English turns, the rule for other languages.

`turn_training` beside this package's `src` made the network; its RESULTS.md says how good it is.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from lollms_kernel.errors import ConfigError

from .detector import Turn, TurnDetector, spoken_last
from .features import featurised
from .normalise import normalised
from .rule import rule_probability, spoken_language
from .session import quiet_session

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MODEL = "turn_detector.onnx"
VOCABULARY = "vocabulary"
"""The key of the words in the file's metadata, one a line in the order of their ids."""


class EmbeddedDetector(TurnDetector):
    """Asks the network where the turn is English, as `language` says or else its words tell."""

    name = "embedded"
    default_threshold = 0.5
    """The highest at which 95 % of the complete turns of the development set pass."""

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__(threshold)
        self._lock = threading.Lock()
        self._network: Network | None = None

    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        """See `TurnDetector.probability`."""
        text = spoken_last(turns)
        if not normalised(text):
            return 0.0
        code = spoken_language(turns, language)
        return rule_probability(text, code) if code != "en" else self._loaded().probability(turns)

    def close(self) -> None:
        """See `TurnDetector.close`."""
        with self._lock:
            self._network = None

    def _loaded(self) -> Network:
        with self._lock:
            if self._network is None:
                self._network = Network(embedded_model())
            return self._network


class Network:
    """A network as `turn_training` exports it: one file with its vocabulary."""

    def __init__(self, file: Traversable) -> None:
        try:
            self._session: Any = quiet_session(file.read_bytes())
        except Exception as error:  # a missing library or a broken file; onnxruntime raises what it likes
            raise ConfigError(
                f"The embedded turn detector cannot be loaded: {error}",
                hint="Reinstall lollms-transport-ws-chat and onnxruntime, or choose the detector `rule`.",
            ) from error
        words = self._session.get_modelmeta().custom_metadata_map[VOCABULARY].split("\n")
        self.vocabulary = {word: n for n, word in enumerate(words)}

    def probability(self, turns: Sequence[Turn]) -> float:
        """How likely it is that the last turn is complete."""
        import numpy as np

        words, whole = featurised(turns, self.vocabulary)
        inputs = {"words": np.array([words], np.int64), "whole": np.array([whole], np.int64)}
        (found,) = self._session.run(None, inputs)
        return float(found[0])


def embedded_model() -> Traversable:
    """The committed file."""
    return resources.files(__package__).joinpath("models", MODEL)
