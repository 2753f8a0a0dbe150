"""How many threads a model gets when nobody says so."""

from __future__ import annotations

from lollms_kernel.processors import physical_cores

SMALL_MODEL = 20 * 10**6
"""Below this size one thread is faster: handing work between threads costs more than the work."""


def automatic_threads(model_size: int) -> int:
    """One thread for a small model, else one for each physical core that this process may use."""
    return 1 if model_size < SMALL_MODEL else physical_cores()
