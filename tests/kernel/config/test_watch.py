"""Changes of the main file are noticed; what is broken or gone changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lollms_kernel.config import LoadedConfig, load_config
from lollms_kernel.config.store import open_main
from lollms_kernel.config.watch import watch
from lollms_kernel.errors import ConfigError

LIMIT = 30.0


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[asyncio.Queue[LoadedConfig]]:
    """What the watcher hands on, after the version that is there at the start."""
    found: asyncio.Queue[LoadedConfig] = asyncio.Queue()
    task = asyncio.create_task(watch(load_config(folder, {}), found.put_nowait, {}, interval=0.02))
    try:
        async with asyncio.timeout(LIMIT):
            await found.get()
            yield found
    finally:
        task.cancel()


def set_port(folder: Path, port: int) -> None:
    document = open_main(folder, {})
    document.set("server.port", port)
    document.save()


class Heard(logging.Handler):
    """Waits for lines of the watcher's log."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.put_nowait(record.getMessage())

    async def line(self) -> str:
        async with asyncio.timeout(LIMIT):
            return await self._lines.get()


@pytest.fixture
def log() -> Iterator[Heard]:
    heard = Heard()
    logger = logging.getLogger("lollms_kernel.config.watch")
    logger.addHandler(heard)
    yield heard
    logger.removeHandler(heard)


async def test_every_saved_version_is_handed_on(tmp_path: Path) -> None:
    async with watching(tmp_path) as found:
        for port in (9701, 9702):
            set_port(tmp_path, port)
            assert (await found.get()).main.server.port == port


async def test_a_broken_version_is_logged_and_the_next_good_one_counts(tmp_path: Path, log: Heard) -> None:
    set_port(tmp_path, 9700)
    async with watching(tmp_path) as found:
        (tmp_path / "main_config.yaml").write_text("server: {port: [")
        assert (await log.line()).startswith("the running configuration stays: ")
        assert found.empty()

        (tmp_path / "main_config.yaml").write_text("server: {port: 9701}")
        assert (await found.get()).main.server.port == 9701


async def test_a_file_that_is_gone_changes_nothing(tmp_path: Path, log: Heard) -> None:
    set_port(tmp_path, 9700)
    async with watching(tmp_path) as found:
        (tmp_path / "main_config.yaml").rename(tmp_path / "away")
        assert (await log.line()).endswith("main_config.yaml is gone; the running configuration stays")
        assert found.empty()

        (tmp_path / "main_config.json").write_text('{"server": {"port": 9702}}')
        assert (await found.get()).main.server.port == 9702


async def test_what_refuses_a_version_does_not_end_the_watch(tmp_path: Path, log: Heard) -> None:
    seen: asyncio.Queue[int] = asyncio.Queue()
    faults: list[Exception] = [
        ConfigError("Not this one.", hint="Try another."),
        KeyError("a mistake in here"),
    ]

    def apply(loaded: LoadedConfig) -> None:
        if faults:
            raise faults.pop(0)
        seen.put_nowait(loaded.main.server.port)

    task = asyncio.create_task(watch(load_config(tmp_path, {}), apply, {}, interval=0.02))
    try:
        assert await log.line() == "the running configuration stays: Not this one. Try another."
        set_port(tmp_path, 9701)
        assert await log.line() == "the running configuration stays: the new one could not be applied"
        set_port(tmp_path, 9702)
        async with asyncio.timeout(LIMIT):
            assert await seen.get() == 9702
    finally:
        task.cancel()
