"""The main memory that is free, as far as engines care."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def free_memory(root: Path = _ROOT) -> int | None:
    """Bytes that processes here may still use, within every limit of a container or service; None where nobody tells.

    Pages of files that were read and are not in use count as free: the system drops them first.
    """
    found = [_available(root), *_rests(root)]
    return min((rest for rest in found if rest is not None), default=None)


def _available(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _rests(root: Path) -> Iterator[int | None]:
    """What each control group that this process is in leaves of its limit, those above it included."""
    try:
        entries = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for entry in entries:  # number:controllers:path; version 2 names no controllers
        number, _, rest = entry.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = top / path.strip("/")
        while folder.is_relative_to(top):
            yield _rest(folder, *names)
            folder = folder.parent


def _rest(folder: Path, limit: str, used: str, spare: str) -> int | None:
    try:
        most, now = int((folder / limit).read_text()), int((folder / used).read_text())
        numbers = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, most - now + int(numbers.get(spare, 0)))
    except (OSError, ValueError):  # there is no limit: the word for that is "max", or there is no file
        return None
