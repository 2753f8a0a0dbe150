"""Remembers which instance has a model, so that not every request has to ask all of them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

LIFE = 30.0
"""Seconds after which the instances are asked again: models come and go."""
MOST = 1024


class Places:
    """By who asks, since an API key may use only some instances, and model."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()

    def find(self, tenant: str, model: str) -> str | None:
        """The instance, if it was found a short while ago."""
        instance, until = self._found.get((tenant, model), (None, 0.0))
        return instance if self._clock() < until else None

    def note(self, tenant: str, model: str, instance: str) -> None:
        """It was found there."""
        self._found[tenant, model] = (instance, self._clock() + LIFE)
        self._found.move_to_end((tenant, model))
        if len(self._found) > MOST:
            self._found.popitem(last=False)
