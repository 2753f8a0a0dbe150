"""Examples as arrays of ids, and the vocabulary that they use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lollms_transport_ws_chat.turn_detection.features import SPECIALS, global_ids, word_ids
from lollms_transport_ws_chat.turn_detection.normalise import normalised

from .examples import Example, Examples, function_words

LEAST = 12
"""How often a word occurs to get an id of its own; strangers occur less often."""


class Arrays(NamedTuple):
    """Inputs of the network and the labels."""

    words: npt.NDArray[np.int64]
    whole: npt.NDArray[np.int64]
    complete: npt.NDArray[np.float32]


def examples_of(seed: int, count: int) -> list[Example]:
    """So many different examples."""
    chosen: dict[tuple[str, int], Example] = {}
    for example in islice(Examples(seed).stream(), 3 * count):
        chosen.setdefault((example.text, example.expected), example)
        if len(chosen) >= count:
            break
    return list(chosen.values())


def generated(seed: int, count: int, known: Iterable[str] = SPECIALS) -> tuple[Arrays, dict[str, int]]:
    """So many different examples, and the vocabulary: the known words, whose ids stay, and new ones after them."""
    examples = examples_of(seed, count)
    counts = Counter(word for example in examples for word in normalised(example.text).split())
    words = list(known)
    frequent = {word for word, n in counts.items() if n >= LEAST}
    words += sorted((frequent | function_words()) - set(words))
    vocabulary = {word: n for n, word in enumerate(words)}
    return encoded(examples, vocabulary), vocabulary


def encoded(examples: Iterable[Example], vocabulary: dict[str, int]) -> Arrays:
    """The ids of examples."""
    words, whole, complete = [], [], []
    for example in examples:
        words.append(word_ids(normalised(example.text).split(), vocabulary))
        whole.append(global_ids(example.text, example.expected))
        complete.append(float(example.complete))
    return Arrays(np.array(words, np.int64), np.array(whole, np.int64), np.array(complete, np.float32))
