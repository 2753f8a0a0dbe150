"""Python, memory and compiler."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from .findings import Finding

GIB = 2**30
LITTLE_MEMORY = GIB
COMPILERS = ("c++", "g++", "clang++", "cl")

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def examine_machine() -> Iterator[Finding]:
    """Findings about what is there before any package is installed."""
    yield Finding("ok", "Python", f"{platform.python_version()} in {sys.prefix}")
    yield Finding("ok", "platform", f"{platform.platform()}, {os.cpu_count()} CPU cores")
    yield from _memory()
    yield _compiler()


def _memory() -> Iterator[Finding]:
    free = free_memory()
    if free is None:
        return
    text = f"{free / GIB:.1f} GiB free"
    if free < LITTLE_MEMORY:
        cure = "Close other programs, or use a smaller model: a model needs about its file size."
        yield Finding("warning", "memory", text, cure)
    else:
        yield Finding("ok", "memory", text)


def free_memory() -> int | None:
    """Bytes that new processes may use, within the limit of a container; None where nobody tells."""
    limits = [limit for limit in (_available(), _container_rest()) if limit is not None]
    return min(limits, default=None)


def _available() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _container_rest() -> int | None:
    """What cgroup version 2 leaves of its limit."""
    try:
        limit, used = ((_CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        return None if limit == "max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return None


def _compiler() -> Finding:
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if found:
        return Finding("ok", "C++ compiler", found)
    return Finding(
        "warning",
        "C++ compiler",
        "none found; engines that come as source, such as llama.cpp, cannot be built here",
        "Install one: `apt install g++` (Debian, Ubuntu), `dnf install gcc-c++` (Fedora), `xcode-select --install`.",
    )
