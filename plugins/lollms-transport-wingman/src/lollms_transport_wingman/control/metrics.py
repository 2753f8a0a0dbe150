"""The frame of figures that clients chart: what the engine does for the model that runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from lollms_kernel.contracts import HasEngine, Kernel
from lollms_kernel.downloads import Downloads
from lollms_kernel.errors import LollmsError
from lollms_kernel.quantization import quantization_of

from .hardware import Probe
from .metadata import as_texts, header_of, tensors_of
from .objects import Json, WingmanItem

UNKNOWN = -1


class Facts(msgspec.Struct, frozen=True):
    """What does not change while a model runs."""

    alias: str
    meta: dict[str, str]
    tensors: dict[str, int]
    system: Json
    started: float


class Metrics:
    """Makes the frames of one server."""

    def __init__(self, kernel: Kernel, downloads: Downloads, probe: Probe) -> None:
        self._kernel = kernel
        self._downloads = downloads
        self._probe = probe
        self._facts: Facts | None = None

    async def frame(self, item: WingmanItem, instance: str) -> Json:
        """`meta`, `system`, `tensors` and `timings` of the model that runs in `instance`."""
        if self._facts is None or self._facts.alias != item.alias or self._facts.system["port"] != item.port:
            self._facts = await self._gather(item, instance)
        facts = self._facts
        return {
            "event": "metrics",
            "alias": facts.alias,
            "meta": facts.meta,
            "system": facts.system,
            "tensors": facts.tensors,
            "timings": timings(await self._figures(instance), facts.started),
        }

    def forget(self) -> None:
        """The model that ran does not run any more."""
        self._facts = None

    async def _figures(self, instance: str) -> dict[str, float]:
        try:
            binding = self._kernel.binding(instance)
            return await binding.engine_metrics(None) if isinstance(binding, HasEngine) else {}
        except LollmsError:
            return {}  # it is just being taken away

    async def _gather(self, item: WingmanItem, instance: str) -> Facts:
        path = self._downloads.path(item.modelRepo, item.filePath)
        header = await header_of(path)
        size = context = UNKNOWN
        try:
            info = await self._kernel.binding(instance).get_model_info()
            size, context = info.size or UNKNOWN, info.context_size or UNKNOWN
        except LollmsError:
            pass  # it is just being taken away
        hardware = await self._probe.hardware()
        blocks = header.own("block_count") if header is not None else None
        system = {
            "ctx_size": item.contextSize or context,
            "cuda_str": "",
            "gpu_name": "N/A",
            "mem_required": UNKNOWN if size == UNKNOWN else size // 2**20,
            "offloading_repeating": UNKNOWN,
            "offloading_nonrepeating": UNKNOWN,
            "offloaded": item.gpuLayers if hardware.gpu.totalMemoryMB > 0 else 0,
            "offloaded_total": UNKNOWN if blocks is None else blocks + 1,
            "vram_used": UNKNOWN,
            "vram_per_layer_avg": UNKNOWN,
            "model_path": item.filePath,
            "model_file_name": Path(item.filePath).name,
            "model_name": (header.text("general.name") if header is not None else None) or item.filePath,
            "model_alias": item.alias,
            "quantization": quantization_of(item.filePath) or "N/A",
            "has_next_token": False,
            "port": item.port,
        }
        return Facts(
            item.alias,
            as_texts(header) if header is not None else {},
            tensors_of(header) if header is not None else {},
            system,
            time.time(),
        )


def timings(figures: dict[str, float], started: float) -> dict[str, Any]:
    """Wingman's names for the engine's counters; all are numbers, 0 before anything was done."""
    prompt = figures.get("prompt_tokens_total", 0)
    prompt_ms = 1000 * figures.get("prompt_seconds_total", 0)
    predicted = figures.get("tokens_predicted_total", 0)
    predicted_ms = 1000 * figures.get("tokens_predicted_seconds_total", 0)
    return {
        "timestamp": int(time.time()),
        "load_time": figures.get("load_seconds", 0) * 1000,
        **_rates("sample", predicted, predicted_ms),
        "sample_time": predicted_ms,
        "total_time": 1000 * (time.time() - started),
        **_rates("prompt", prompt, prompt_ms),
        "prompt_ms": prompt_ms,
        **_rates("predicted", predicted, predicted_ms),
        "predicted_ms": predicted_ms,
    }


def _rates(name: str, count: float, milliseconds: float) -> dict[str, float]:
    return {
        f"{name}_count": int(count),
        f"{name}_per_token_ms": milliseconds / count if count else 0.0,
        f"{name}_per_second": 1000 * count / milliseconds if milliseconds else 0.0,
    }
