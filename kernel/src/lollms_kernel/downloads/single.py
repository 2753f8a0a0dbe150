"""One file from a hub to a place of the caller's, without the queue and its records, and as carefully as there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ..config.schema import DownloadsConfig
from ..upstream import Pauses
from .fetching import Fetcher
from .hub import Hub
from .part import Part
from .records import Download
from .transfer import Transfer

LOOK_AGAIN = 1.0
"""Seconds after which it is looked whether another process is still at the same file."""


async def fetch_file(
    hub_url: str,
    token: str | None,
    wanted: Download,
    target: Path,
    part: Path,
    *,
    tell: Callable[[Download], None],
    settings: DownloadsConfig | None = None,
    pauses: Pauses | None = None,
) -> None:
    """Have the file that `wanted` describes at `target`: whole and verified, or not there at all.

    What has come lies in `part`, on the same disk; interrupted or cancelled, it stays there, and the next call goes on
    with it. One process at a time works on a file: others wait for it. `tell` hears now and then how far it is, also
    while it waits.
    Raises DownloadFailed, or what a refusal of the hub means; Unavailable and RateLimited may pass by themselves.
    """
    settings = settings or DownloadsConfig()
    while (opened := Part.open(part)) is None:
        tell(wanted)
        await asyncio.sleep(LOOK_AGAIN)

    async def save(download: Download) -> None:
        tell(download)

    fetcher = Fetcher(hub_url, token, settings.stall_timeout)
    try:
        transfer = Transfer(
            wanted, opened, target, hub=Hub(hub_url, token), fetcher=fetcher, save=save,
            retries=settings.retries, pauses=pauses or Pauses(),
        )  # fmt: skip
        await transfer.run()
    finally:
        opened.close()
        await fetcher.close()
