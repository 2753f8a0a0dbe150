"""Python, memory and compiler."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator

from ..free_memory import free_memory
from .findings import Finding

GIB = 2**30
LITTLE_MEMORY = GIB
COMPILERS = ("c++", "g++", "clang++", "cl")


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
