"""What a sandboxed process may use, and putting that into force in the process itself."""

from __future__ import annotations

import os
import sys

import msgspec

from .system_calls import forbid_processes

_NO_CORE = 0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """None: no limit. Sizes in bytes."""

    memory: int | None = None
    """Address space, which is more than what is resident: an empty process has some 50 MB."""
    cpu_seconds: int | None = None
    file_size: int | None = None
    """Of each file that it writes."""
    open_files: int | None = None
    processes: bool = True
    """Whether it may start other processes and signal any. Threads it always may."""


def put_in_force(limits: Limits) -> list[str]:
    """Limit this process for good; what this system cannot limit comes back in words."""
    import resource  # not there on Windows, where nothing here works

    def limit(kind: int, value: int | None) -> None:
        if value is not None:
            _, hard = resource.getrlimit(kind)
            top = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (top, top))

    missing = []
    limit(resource.RLIMIT_CORE, _NO_CORE)
    limit(resource.RLIMIT_CPU, limits.cpu_seconds)
    limit(resource.RLIMIT_FSIZE, limits.file_size)
    limit(resource.RLIMIT_NOFILE, limits.open_files)
    if limits.memory is not None:
        try:
            limit(resource.RLIMIT_AS, limits.memory)
        except (ValueError, OSError):  # macOS refuses it
            missing.append("its memory is not limited")
    if not limits.processes and not forbid_processes():
        # The number counts all processes of this user: it forbids new ones, and root is not bound by it.
        limit(resource.RLIMIT_NPROC, 0)
        if sys.platform == "linux" or os.geteuid() == 0:
            missing.append("it can start processes")
    return missing
