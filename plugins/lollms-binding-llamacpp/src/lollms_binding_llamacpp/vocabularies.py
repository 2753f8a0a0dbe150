"""Vocabularies for counting tokens of any model, whatever model is loaded: read alone, without weights."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from lollms_kernel.errors import ModelLoadFailed

from .library import ModelFile
from .native import LoadFailed, Model, Vocabulary, start_backend

KEPT = 2


class Vocabularies:
    """The last few vocabularies that were used. Blocks while it reads one: use it in a thread."""

    def __init__(self, verbose: bool) -> None:
        self._models: OrderedDict[ModelFile, Model] = OrderedDict()
        self._lock = threading.Lock()
        start_backend(verbose)

    @contextmanager
    def of(self, file: ModelFile) -> Iterator[Vocabulary]:
        """The vocabulary of a model, usable inside only. Raises ModelLoadFailed."""
        with self._lock:  # held while it is used, so that nobody gives its memory back meanwhile
            if file not in self._models:
                self._models[file] = _read(file)
            self._models.move_to_end(file)
            while len(self._models) > KEPT:
                self._models.popitem(last=False)[1].close()
            yield self._models[file].vocabulary

    def close(self) -> None:
        """Give all memory back."""
        with self._lock:
            while self._models:
                self._models.popitem()[1].close()


def _read(file: ModelFile) -> Model:
    try:
        return Model(file.path, vocabulary_only=True)
    except LoadFailed as error:
        raise ModelLoadFailed(
            f"llama.cpp could not read the vocabulary of '{file.name}': {error}.",
            hint="The file may be damaged or incomplete: download it again.",
        ) from None
