"""The JSON objects of the control API, with every field that its clients know."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lollms_kernel.downloads import Download

ItemStatus = Literal["queued", "preparing", "inferring", "complete", "error", "cancelling", "unknown"]
ACTIVE: tuple[ItemStatus, ...] = ("queued", "preparing", "inferring")
ENDED: tuple[ItemStatus, ...] = ("complete", "error")

_DOWNLOAD_STATUS = {"paused": "idle"}
_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")

Json = dict[str, Any]


class WingmanItem(msgspec.Struct, frozen=True, kw_only=True):
    """A model that somebody wants to run, or has run."""

    alias: str
    modelRepo: str
    filePath: str
    status: ItemStatus = "queued"
    address: str = "localhost"
    port: int = 6567
    contextSize: int = 0
    gpuLayers: int = -1
    chatTemplate: str = "chatml"
    error: str = ""
    created: int = 0
    updated: int = 0

    @property
    def active(self) -> bool:
        """Whether it is loaded or on its way there."""
        return self.status in ACTIVE

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs."""
        return self.status in ENDED

    def shown(self) -> Json:
        """As clients get it."""
        return {"isa": "WingmanItem", "force": False, **msgspec.structs.asdict(self)}


def download_item(download: Download) -> Json:
    """A download as clients get it."""
    started = download.status not in ("queued", "paused", "unknown") and bool(
        download.total or download.speed
    )
    return {
        "isa": "DownloadItem",
        "modelRepo": download.repo,
        "filePath": download.file,
        "status": _DOWNLOAD_STATUS.get(download.status, download.status),
        "totalBytes": download.total if download.status != "queued" else 0,
        "downloadedBytes": download.downloaded,
        "downloadSpeed": f"{in_units(download.speed)}/s" if started else "",
        "progress": 0 if download.status == "queued" else round(download.progress, 3),
        "metadata": "{}",
        "error": download.error,
        "created": download.created,
        "updated": download.updated,
    }


def in_units(count: float) -> str:
    """`12.3 MB` for 12,900,000; whole below 1024."""
    if count < 1024:
        return f"{int(count)} B"
    for unit in _UNITS[1:]:
        count /= 1024
        if count < 1024 or unit == _UNITS[-1]:
            break
    return f"{count:.1f} {unit}"


def download_service(downloads: list[Download], now: int) -> Json:
    """What the download service does."""
    current = next((download for download in downloads if download.status == "downloading"), None)
    return {
        "isa": "DownloadServiceAppItem",
        "status": "ready" if current is None else "downloading",
        "currentDownload": None if current is None else download_item(current),
        "error": "",
        "created": now,
        "updated": now,
    }


_SERVICE_STATUS = {
    "queued": "starting",
    "preparing": "preparing",
    "inferring": "inferring",
    "cancelling": "stopping",
}


def wingman_service(items: list[WingmanItem], now: int) -> Json:
    """What the inference service does: its active model, else the one that failed last, else nothing."""
    busy = [item for item in items if item.status in _SERVICE_STATUS]
    failed = sorted((item for item in items if item.status == "error"), key=lambda item: item.updated)
    shown = {
        "isa": "WingmanServiceAppItem",
        "alias": "",
        "modelRepo": "",
        "filePath": "",
        "force": False,
        "status": "ready",
        "error": "",
        "created": now,
        "updated": now,
    }
    for item in (busy or failed)[-1:]:
        own = msgspec.structs.asdict(item)
        shown.update(
            (key, own[key]) for key in ("alias", "modelRepo", "filePath", "error", "created", "updated")
        )
        shown["status"] = _SERVICE_STATUS.get(item.status, "error")
    return shown
