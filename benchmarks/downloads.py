"""What downloading costs beside plain httpx: both fetch the same file from a hub in another process, by turns.

`python -m benchmarks.downloads` takes these figures alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx

from lollms_kernel.downloads import Downloads, Wanted
from lollms_kernel.testing.fakes.hub import FakeHub

from .figures import Figure

REPO, FILE = "bench/model-GGUF", "model.Q4_0.gguf"
MIB = 1 << 20
SIZE = 128 * MIB
ROUNDS = 5


def download_figures() -> Iterator[Figure]:
    """All of them."""
    with hub() as url, tempfile.TemporaryDirectory(prefix="lollms-bench-") as folder:
        yield from asyncio.run(_measured(url, Path(folder)))


@contextlib.contextmanager
def hub() -> Iterator[str]:
    """The address of a hub with one file, in a process of its own."""
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.downloads", "hub"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        yield child.stdout.readline().strip()
    finally:
        child.stdin.close()
        child.wait(30)


async def _measured(url: str, folder: Path) -> list[Figure]:
    wall: dict[str, list[float]] = {"plain httpx": [], "lollms": []}
    cpu: dict[str, list[float]] = {"plain httpx": [], "lollms": []}
    resumes = []

    async def timed(name: str, fetch: Callable[[Path], Awaitable[None]], number: int) -> None:
        target = folder / f"{name} {number}"
        target.mkdir()
        started, before = time.perf_counter(), time.process_time()
        await fetch(target)
        cpu[name].append(1000 * (time.process_time() - before) / (SIZE / MIB))
        wall[name].append(SIZE / MIB / (time.perf_counter() - started))

    async def plain(target: Path) -> None:
        async with httpx.AsyncClient(follow_redirects=True, trust_env=False) as client:
            address = f"{url}/{REPO}/resolve/main/{FILE}"
            async with client.stream("GET", address, headers={"accept-encoding": "identity"}) as answer:
                with (target / FILE).open("wb") as file:
                    async for block in answer.aiter_raw():
                        file.write(block)

    async def ours(target: Path) -> None:
        async with Downloads(target, url) as downloads:
            await downloads.ensure(Wanted(REPO, FILE))

    await plain(_made(folder / "warm plain"))
    await ours(_made(folder / "warm lollms"))
    for number in range(ROUNDS):
        await timed("plain httpx", plain, number)
        await timed("lollms", ours, number)
        resumes.append(await _resumed(url, _made(folder / f"resumed {number}"), folder / "warm plain" / FILE))
    figures = [
        Figure(f"download: {name}, loopback", "MiB/s", tuple(samples)) for name, samples in wall.items()
    ]
    figures += [Figure(f"download: {name}, CPU", "ms/MiB", tuple(samples)) for name, samples in cpu.items()]
    return [
        *figures,
        Figure("download: going on after 127 of 128 MiB, to the verified file", "ms", tuple(resumes)),
    ]


async def _resumed(url: str, target: Path, whole: Path) -> float:
    async with Downloads(target, url) as downloads:
        part = downloads.places.part(REPO, FILE)
        part.parent.mkdir(parents=True)
        with whole.open("rb") as file:
            part.write_bytes(file.read(SIZE - MIB))
        started = time.perf_counter()
        await downloads.ensure(Wanted(REPO, FILE))
        return 1000 * (time.perf_counter() - started)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _serve() -> None:
    with FakeHub() as fake:
        fake.add(REPO, {FILE: random.Random(1).randbytes(SIZE)})
        print(fake.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1:] == ["hub"]:
        _serve()
    else:
        for figure in download_figures():
            spread = f"{min(figure.samples):.4g} – {max(figure.samples):.4g}"
            print(f"{figure.name}: {figure.median:.4g} {figure.unit}  ({spread})")
