"""One file without a queue: it goes on where it was left, and only a whole one is in its place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lollms_kernel.downloads import Download, single
from lollms_kernel.downloads.single import fetch_file
from lollms_kernel.errors import DownloadFailed
from lollms_kernel.testing.fakes.hub import FakeHub, sha256

from .conftest import FILE, MIB, REPO

LIMIT = 30.0


class Fetching:
    """A file of the hub, its places, and what was told of it."""

    def __init__(self, hub: FakeHub, folder: Path) -> None:
        self.hub = hub
        self.content = hub.repos[REPO].files[FILE]
        self.target = folder / "blobs" / "whole"
        self.part = folder / "blobs" / "whole.part"
        self.told: list[int] = []

    async def run(self) -> None:
        wanted = Download(
            repo=REPO, file=FILE, status="downloading", total=len(self.content), sha256=sha256(self.content),
            revision=self.hub.repos[REPO].head,
        )  # fmt: skip
        await fetch_file(
            self.hub.url,
            None,
            wanted,
            self.target,
            self.part,
            tell=lambda now: self.told.append(now.downloaded),
        )

    async def until_some_is_here(self) -> None:
        async with asyncio.timeout(LIMIT):
            while not self.part.exists() or not self.part.stat().st_size:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)


@pytest.fixture
def fetching(hub: FakeHub, tmp_path: Path) -> Fetching:
    return Fetching(hub, tmp_path)


async def test_cancelled_it_stops_and_the_next_call_goes_on_there(fetching: Fetching, hub: FakeHub) -> None:
    hub.storage.frame_delay = 0.1
    first = asyncio.create_task(fetching.run())
    await fetching.until_some_is_here()
    first.cancel()
    await asyncio.wait([first], timeout=LIMIT)
    assert first.cancelled()
    assert not fetching.target.exists()
    [request] = hub.storage.received
    await hub.storage.until(request.left)

    here, hub.storage.frame_delay = fetching.part.stat().st_size, 0.0
    await fetching.run()
    assert fetching.target.read_bytes() == fetching.content
    assert not fetching.part.exists()
    assert hub.storage.received[-1].headers["range"] == f"bytes={here}-"
    assert here in fetching.told


async def test_two_who_want_it_at_once_fetch_it_once(
    fetching: Fetching, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "LOOK_AGAIN", 0.05)
    hub.storage.frame_delay = 0.01
    waiting = Fetching(hub, fetching.target.parents[1])
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(fetching.run(), waiting.run())
    assert len(hub.storage.received) == 1
    assert set(waiting.told) == {0}  # it says that it is alive
    assert len(fetching.content) > 3 * MIB
    assert fetching.target.read_bytes() == fetching.content


async def test_a_damaged_file_is_not_put_in_its_place(fetching: Fetching, hub: FakeHub) -> None:
    hub.storage.mangle = lambda content: content[:-1] + b"!"
    with pytest.raises(DownloadFailed, match="checksum is wrong"):
        await fetching.run()
    assert not fetching.target.exists()
    assert not fetching.part.exists()
