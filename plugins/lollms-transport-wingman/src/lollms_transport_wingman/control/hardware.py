"""How much memory this machine has, in MiB; -1 where nobody knows."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import msgspec

MIB = 2**20
FRESH = 5.0
"""Seconds that the GPU is not asked again."""
LIMIT = 5.0
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA = ("nvidia-smi", "--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits")


class Memory(msgspec.Struct, frozen=True):
    """Of one device, in MiB."""

    totalMemoryMB: int = -1
    freeMemoryMB: int = -1


class Hardware(msgspec.Struct, frozen=True):
    """Main memory, and that of the first GPU."""

    cpu: Memory = Memory()
    gpu: Memory = Memory()

    @property
    def for_models(self) -> Memory:
        """Where models go: the GPU if there is one."""
        return self.gpu if self.gpu.totalMemoryMB > 0 else self.cpu


class Probe:
    """Asks the machine; the GPU not more often than every few seconds, since a program has to be started for it."""

    def __init__(self) -> None:
        self._gpu = Memory()
        self._asked = -FRESH
        self._turn = asyncio.Lock()

    async def hardware(self) -> Hardware:
        """What there is now."""
        cpu = await asyncio.to_thread(main_memory)
        async with self._turn:
            if time.monotonic() - self._asked >= FRESH:
                self._gpu = await _first_gpu()
                self._asked = time.monotonic()
        return Hardware(cpu, self._gpu)


def main_memory() -> Memory:
    """Within the limit of a container, if there is one."""
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return Memory()
    told = {line.partition(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
    try:
        total, free = int(told["MemTotal"]) * 1024, int(told["MemAvailable"]) * 1024
    except (KeyError, ValueError):
        return Memory()
    try:
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        total, free = min(total, limit), min(free, max(0, limit - used))
    except (OSError, ValueError):
        pass  # there is no container, or it has no limit
    return Memory(total // MIB, free // MIB)


async def _first_gpu() -> Memory:
    program = shutil.which(_NVIDIA[0])
    if program is None:
        return Memory()
    try:
        process = await asyncio.create_subprocess_exec(
            program, *_NVIDIA[1:], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return Memory()
    try:
        async with asyncio.timeout(LIMIT):
            said, _ = await process.communicate()
        total, free = said.decode().splitlines()[0].split(",")
        return Memory(int(total), int(free))
    except (TimeoutError, ValueError, IndexError):
        return Memory()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
