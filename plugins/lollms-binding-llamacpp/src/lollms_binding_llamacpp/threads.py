"""How many threads a model gets when nobody says so."""

from __future__ import annotations

import os
from pathlib import Path

SMALL_MODEL = 20 * 10**6
"""Below this size one thread is faster: handing work between threads costs more than the work."""

_TOPOLOGY = Path("/sys/devices/system/cpu")


def automatic_threads(model_size: int) -> int:
    """One thread for a small model, else one for each physical core that this process may use."""
    return 1 if model_size < SMALL_MODEL else physical_cores()


def physical_cores(topology: Path = _TOPOLOGY) -> int:
    """Cores that this process may run on; a core's second hyper-thread does not count."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not on this operating system
        return os.cpu_count() or 1
    cores = set()
    for cpu in allowed:
        place = topology / f"cpu{cpu}" / "topology"
        try:
            cores.add(((place / "physical_package_id").read_text(), (place / "core_id").read_text()))
        except OSError:
            return len(allowed)
    return len(cores) or 1
