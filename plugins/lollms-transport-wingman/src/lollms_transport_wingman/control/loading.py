"""Brings a downloaded model into an engine of its own, with fewer layers on the GPU where memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lollms_kernel.contracts import Kernel
from lollms_kernel.downloads import Download
from lollms_kernel.errors import ConfigError, LollmsError, ModelLoadFailed
from lollms_kernel.gguf_header import GgufHeader

from .hardware import MIB, main_memory
from .metadata import TEMPLATE, header_of
from .objects import WingmanItem
from .templates import TEMPLATES

logger = logging.getLogger(__name__)

BINDING = "llamacpp_binding"
INSTANCE = "wingman"
ALL_LAYERS = 99
_SIGNS = ("memory", "alloc", "signal 9", "sigkill")


def fewer_layers(asked: int, known: int | None) -> Iterator[int]:
    """Numbers of GPU layers to try, from what was asked for (-1: all) by halves down to one; 0 stays 0."""
    layers = ALL_LAYERS if asked < 0 else asked
    yield asked if asked <= 0 else layers
    if known is not None:
        layers = min(layers, known + 1)  # one more than its blocks, for the output
    while layers > 1:
        layers //= 2
        yield layers


def is_out_of_memory(error: LollmsError) -> bool:
    """Whether a model did not load because there was no room for it."""
    text = error.detail.casefold()
    return any(sign in text for sign in _SIGNS)


class Loader:
    """Makes instances for the models that are started."""

    def __init__(self, kernel: Kernel, binding: str = BINDING) -> None:
        self._kernel = kernel
        self._binding = binding

    async def load(self, item: WingmanItem, download: Download, path: Path) -> tuple[str, int]:
        """The instance with the model in memory, and how many layers are on the GPU (-1: all).

        Raises what keeps it from loading; nothing is left of it then.
        """
        name = self._free_name()
        header = await header_of(path)
        if header is not None:
            _check_context(item, header)
        blocks = header.own("block_count") if header is not None else None
        tried = 0
        for layers in fewer_layers(item.gpuLayers, blocks):
            settings = {**self._settings(item, download), "n_gpu_layers": layers}
            if header is not None and not header.text(TEMPLATE):
                settings.setdefault("chat_template", TEMPLATES["chatml"])
            tried += 1
            try:
                await self._load(name, settings)
                return name, layers
            except ConfigError:
                raise
            except LollmsError as error:
                if not is_out_of_memory(error):
                    raise
                logger.warning(
                    "%s does not fit with %d layers on the GPU: %s", item.alias, layers, error.detail
                )
                last = error
        where = " even with one layer on the GPU" if tried > 1 else ""
        raise ModelLoadFailed(
            f"There is not enough memory for '{item.filePath}'{where}. {last.message}",
            hint="Choose a smaller quantization, set contextSize to less, or gpuLayers to 0.",
        )

    async def unload(self, name: str) -> None:
        """Give the memory back, at once."""
        await self._kernel.remove_instance(name)

    def is_there(self, name: str) -> bool:
        """Whether the instance still exists."""
        return any(status.name == name for status in self._kernel.instances())

    async def _load(self, name: str, settings: dict[str, Any]) -> None:
        await self._kernel.add_instance(name, settings)
        try:
            await self._kernel.binding(name).load(settings["default_model"])
        except BaseException:
            await self._kernel.remove_instance(name)
            raise

    def _settings(self, item: WingmanItem, download: Download) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "type": self._binding,
            "default_model": download.name,
            "n_ctx": item.contextSize,
        }
        template = template_of(item.chatTemplate)
        if template is not None:
            settings["chat_template"] = template
        return settings

    def _free_name(self) -> str:
        taken = {status.name for status in self._kernel.instances()}
        names = (INSTANCE if number == 1 else f"{INSTANCE}-{number}" for number in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)


def _check_context(item: WingmanItem, header: GgufHeader) -> None:
    """Raise ModelLoadFailed for a context that this machine cannot hold at all.

    Systems that promise more memory than they have would only notice while the engine fills it.
    """
    trained = header.own("context_length") or 0
    asked = item.contextSize or trained
    needed = context_bytes(header, min(asked, trained) if trained else asked)
    total = main_memory().totalMemoryMB
    if needed is not None and total > 0 and needed > total * MIB:
        raise ModelLoadFailed(
            f"There is not enough memory for a context of {asked} tokens: it takes {needed // MIB} MiB, "
            f"the machine has {total}.",
            hint="Set contextSize to less.",
        )


def context_bytes(header: GgufHeader, tokens: int) -> int | None:
    """Bytes of keys and values of `tokens` in half precision; None where the file does not tell."""
    layers, width, heads = (
        header.own(key) for key in ("block_count", "embedding_length", "attention.head_count")
    )
    if not layers or not width or not heads:
        return None
    shared = header.own("attention.head_count_kv") or heads
    keys = header.own("attention.key_length") or width // heads
    values = header.own("attention.value_length") or width // heads
    return layers * shared * (keys + values) * 2 * tokens


def template_of(name: str) -> str | None:
    """The Jinja template that a request's `chatTemplate` means: a known name, or the template itself.

    None for the model's own, which `chatml` means too: it is what clients send who know of nothing else, and right only
    for some models. Where a model has none of its own, ChatML is used.
    """
    if "{" in name:
        return name
    return None if name in ("", "chatml") else TEMPLATES.get(name)
