"""A hub on this machine, and downloads from it into a folder of the test."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from lollms_kernel.config.schema import DownloadsConfig
from lollms_kernel.downloads import Downloads
from lollms_kernel.testing.fakes.hub import FakeHub
from lollms_kernel.upstream import Pauses

REPO = "maker/alpha-GGUF"
FILE = "alpha.Q4_K_M.gguf"
MIB = 1 << 20


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that are the same in every process."""
    return random.Random(seed).randbytes(size)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub with one model of 3 MiB and a bit, and a small text."""
    with FakeHub() as fake:
        fake.add(
            REPO, {FILE: content(3 * MIB + 77), "README.md": b"# Alpha\n"}, small=frozenset({"README.md"})
        )
        yield fake


@pytest.fixture
async def make_downloads(tmp_path: Path, hub: FakeHub) -> AsyncIterator[Callable[..., Any]]:
    """Downloads from the hub, open on the whole queue; pauses between tries take no time."""
    async with AsyncExitStack() as stack:

        async def make(*, everything: bool = True, token: str | None = None, **settings: Any) -> Downloads:
            async def no_pause(_seconds: float) -> None:
                return None

            downloads = Downloads(
                tmp_path / "gguf",
                hub.url,
                token,
                DownloadsConfig(**{"stall_timeout": 5.0, "retries": 3, **settings}),
                pauses=Pauses(patience=60.0, sleep=no_pause),
                poll=0.05,
            )
            stack.push_async_callback(downloads.close)
            await downloads.open(everything=everything)
            return downloads

        yield make
