"""LoRA adapters of a model: loaded with it, put in force with the scales that a request asks for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from lollms_kernel.errors import InvalidRequest

from .context import Context
from .native import LoadFailed, Model, complaints

Scales = tuple[tuple[int, float], ...]
"""(id, scale) of the adapters in force, by id; those with scale 0 are left out."""


class Adapters:
    """The adapters of one model, by their place in the settings. Raises LoadFailed."""

    def __init__(self, model: Model, files: Sequence[tuple[Path, float]]) -> None:
        self._files = tuple(files)
        self._pointers: list[Any] = []
        self._lock = threading.Lock()
        self._scales = [scale for _, scale in files]
        for path, _ in files:
            complaints()
            pointer = llama.llama_adapter_lora_init(model.pointer, bytes(path))
            if not pointer:
                raise LoadFailed(f"the LoRA adapter '{path.name}': {'; '.join(complaints()[-2:])}")
            self._pointers.append(pointer)

    def in_force(self, asked: Sequence[tuple[int, float]] | None) -> Scales:
        """The scales for a request. Raises InvalidRequest for ids that do not exist."""
        if asked is None:
            with self._lock:
                return tuple((id, scale) for id, scale in enumerate(self._scales) if scale)
        self._check(id for id, _ in asked)
        return tuple((id, scale) for id, scale in sorted(asked) if scale)

    def listing(self) -> list[dict[str, Any]]:
        """Each adapter as llama-server lists it; only the name of its file."""
        with self._lock:
            return [
                {"id": id, "path": path.name, "scale": scale, "task_name": "", "prompt_prefix": ""}
                for id, ((path, _), scale) in enumerate(zip(self._files, self._scales, strict=True))
            ]

    def set(self, scales: Sequence[tuple[int, float]]) -> None:
        """Change the scales for requests that say nothing; those left out get 0. Raises InvalidRequest."""
        self._check(id for id, _ in scales)
        chosen = dict(scales)
        with self._lock:
            self._scales = [chosen.get(id, 0.0) for id in range(len(self._files))]

    def applier(self, context: Context) -> Callable[[Scales], None]:
        """A function that puts adapters in force for a context, if they are not already."""
        current: list[Scales] = [()]

        def apply(scales: Scales) -> None:
            if scales != current[0]:
                context.adapt([(self._pointers[id], scale) for id, scale in scales])
                current[0] = scales

        return apply

    def close(self) -> None:
        """Nothing is left to do: llama.cpp frees adapters with their model."""
        self._pointers.clear()

    def _check(self, ids: Any) -> None:
        for id in ids:
            if not 0 <= id < len(self._files):
                raise InvalidRequest(
                    f"There is no LoRA adapter {id}.",
                    hint=f"This instance has {len(self._files)} adapter(s), from 0.",
                )
