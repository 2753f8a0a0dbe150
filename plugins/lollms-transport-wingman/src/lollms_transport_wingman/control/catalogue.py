"""The models of the hub as the control API lists them: one item for each quantization, and whether it fits in here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from lollms_kernel.downloads import Downloads, HubModel
from lollms_kernel.errors import LollmsError
from lollms_kernel.quantization import quantization_of

from .hardware import Memory
from .objects import Json
from .sizes import bits_of, is_split, memory_needed, quantization_name, size_of

logger = logging.getLogger(__name__)

LIMIT = 1000
FRESH = 900.0
"""Seconds for which what the hub has listed counts."""
SUFFIX = "-GGUF"

Key = tuple[str, str]


class Catalogue:
    """Lists what the hub has."""

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads

    async def models(self, memory: Memory, failed: frozenset[Key]) -> list[Json]:
        """AIModel objects; [] where the hub was never reached. `failed` are files whose model could not run."""
        try:
            found = await self._downloads.catalogue(LIMIT, FRESH)
        except LollmsError as error:
            logger.warning("The catalogue is empty: %s", error.detail)
            return []
        here = {
            _folded(row.repo, row.file)
            for row in await self._downloads.all()
            if await self._downloads.is_here(row)
        }
        hub = self._downloads.hub.url

        def listed() -> list[Json]:
            shown = (_shown(model, hub, memory, here.__contains__, failed) for model in found)
            return [entry for entry in shown if entry is not None]

        return await asyncio.to_thread(listed)


def _folded(repo: str, file: str) -> Key:
    return repo.casefold(), file.casefold()


def _shown(
    model: HubModel, hub: str, memory: Memory, is_here: Callable[[Key], bool], failed: frozenset[Key]
) -> Json | None:
    """The AIModel of a repository, None for those that are not listed."""
    if not model.id.upper().endswith(SUFFIX):
        return None
    files = [file.path for file in model.files]
    if any(is_split(file) for file in files):
        return None
    name = model.id[: -len(SUFFIX)]
    size = size_of(name)
    items = [
        {
            "isa": "DownloadableItem",
            "modelRepo": model.id,
            "modelRepoName": name,
            "filePath": file,
            "quantization": quantization,
            "quantizationName": quantization_name(quantization),
            "isDownloaded": is_here(_folded(model.id, file)),
            "available": True,
            "hasError": (model.id, file) in failed,
            "location": f"{hub}/{model.id}/resolve/main/{file}",
            **_fits(memory_needed(size, bits_of(quantization)), memory),
        }
        for quantization, file in sorted(_by_quantization(files).items())
    ]
    if not items:
        return None
    return {
        "isa": "AIModel",
        "id": model.id,
        "name": name,
        "maxLength": 4096,
        "tokenLimit": 65536,
        "vendor": "meta",
        "location": f"{hub}/{model.id}",
        "items": items,
        "downloads": model.downloads,
        "likes": model.likes,
        "created": model.created,
        "updated": model.updated,
        "size": size,
        "iQScore": -1.0,
        "eQScore": -1.0,
        "isInferable": any(item["isInferable"] for item in items),
        "totalMemory": memory.totalMemoryMB,
        "availableMemory": memory.freeMemoryMB,
        "normalizedQuantizedMemRequired": memory_needed(size, 16.0),
    }


def _by_quantization(files: Sequence[str]) -> dict[str, str]:
    """The first file of each quantization."""
    found: dict[str, str] = {}
    for file in files:
        quantization = quantization_of(file)
        if quantization is not None and "mmproj" not in file.lower():
            found.setdefault(quantization, file)
    return found


def _fits(needed: int, memory: Memory) -> Json:
    return {
        "isInferable": 0 <= needed <= memory.freeMemoryMB,
        "normalizedQuantizedMemRequired": needed,
    }
