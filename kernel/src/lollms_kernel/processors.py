"""The processors of this machine, as far as engines care."""

from __future__ import annotations

import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


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
