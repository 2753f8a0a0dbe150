"""What shows that the engine gets on, so that the server can tell a slow drawing from one that hangs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

BLOCKS_OF_A_MIB: Final = 2048
FAULTS_OF_A_MIB: Final = 16
"""A page that is not in memory comes with those around it, 64 KiB or more."""


class Pulse:
    """A number that changes when the engine has begun or ended a piece of work (a job, a step, a load), when bytes of a
    model have come from a hub, and while a model is loaded also with each MiB that the process has moved from or to a
    disk: many gigabytes that come from a slow disk have nothing else to show.

    Nothing else counts. Time on the processor does not: an endless loop uses it too. Nor does the event loop, which
    turns beside an engine that hangs.
    """

    def __init__(self) -> None:
        self._beats = 0
        self._moving = 0
        self._lock = threading.Lock()

    @property
    def value(self) -> int:
        """The number; cheap, from any thread."""
        return self._beats + (_moved() if self._moving else 0)

    def beat(self) -> None:
        """Something was done."""
        with self._lock:
            self._beats += 1

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Data on the move count as well while inside."""
        with self._lock:
            self._moving += 1
        try:
            yield
        finally:
            with self._lock:
                self._moving -= 1
                self._beats += 1


def _moved() -> int:
    """MiB that this process has read from disks and written to them, counted as far as they were not in memory."""
    if sys.platform == "win32":
        return 0  # nothing is asked there: workers need Linux or macOS
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_inblock + usage.ru_oublock) // BLOCKS_OF_A_MIB + usage.ru_majflt // FAULTS_OF_A_MIB
