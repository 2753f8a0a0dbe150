"""The pipelines of one model, one for each task, all sharing the same weights. For the engine's thread only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import diffusers
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    ControlNetModel,
)

from lollms_kernel.errors import InvalidRequest, ModelLoadFailed, NotSupported

from .settings import DiffusersSettings

Task = Literal["text2image", "image2image", "inpaint"]

_AUTOMATIC: dict[Task, Any] = {
    "text2image": AutoPipelineForText2Image,
    "image2image": AutoPipelineForImage2Image,
    "inpaint": AutoPipelineForInpainting,
}


class TaskPipelines:
    """Pipelines made from one loaded pipeline, by what is asked of it."""

    def __init__(self, base: Any, settings: DiffusersSettings, root: Path) -> None:
        self.base = base
        self._settings = settings
        self._root = root
        self._made: dict[tuple[Task, str | None], Any] = {}
        self._controlnets: dict[str, Any] = {}
        self._own_scheduler = getattr(base, "scheduler", None)

    def get(self, task: Task, controlnet: str | None = None) -> Any:
        """The pipeline for a task, with a ControlNet if one is named. Raises NotSupported."""
        key = (task, controlnet)
        if key not in self._made:
            self._made[key] = self._make(task, controlnet)
        return self._made[key]

    def controlnet_name(self, wanted: str | None) -> str:
        """The ControlNet that serves a request. Raises InvalidRequest where there is none (of that name)."""
        known = self.controlnets()
        if not known:
            raise InvalidRequest(
                "There is a control image but no ControlNet model.",
                hint="Put one into `controlnet_models_folder` or name its folder in `controlnet_model_paths`.",
            )
        if wanted is None:
            return next(iter(known))
        if wanted not in known:
            raise InvalidRequest(
                f"parameters.controlnet_model is '{wanted[:80]}'.", hint=f"Known: {', '.join(known)}."
            )
        return wanted

    def controlnets(self) -> dict[str, Path]:
        """Name to folder of every ControlNet, those of the settings first."""
        found = {Path(text).name: self._root / text for text in self._settings.controlnet_model_paths}
        folder = self._settings.controlnet_models_folder
        if folder is not None and (self._root / folder).is_dir():
            for path in sorted((self._root / folder).iterdir()):
                if (path / "config.json").is_file():
                    found.setdefault(path.name, path)
        return found

    def new_scheduler(self, wanted: str | None, *, required: bool) -> Any:
        """A fresh scheduler of the wanted class, else the model's own.

        Raises InvalidRequest where `required` and the model cannot use it.
        """
        own = self._own_scheduler
        if own is None or wanted is None or wanted == type(own).__name__:
            return None if own is None else type(own).from_config(own.config)
        known = sorted(kind.__name__ for kind in getattr(own, "compatibles", []))
        if wanted in known:
            return getattr(diffusers, wanted).from_config(own.config)
        if required:
            raise InvalidRequest(
                f"parameters.scheduler is '{wanted}', which this model cannot use.",
                hint=f"It can use: {', '.join(known) or type(own).__name__}.",
            )
        return type(own).from_config(own.config)

    @property
    def native_size(self) -> tuple[int, int] | None:
        """Width and height that the model was made for."""
        base = self.base
        network = getattr(base, "unet", None) or getattr(base, "transformer", None)
        edge = getattr(base, "default_sample_size", None) or getattr(
            getattr(network, "config", None), "sample_size", None
        )
        factor = getattr(base, "vae_scale_factor", None)
        if edge is None or factor is None:
            return None
        high, wide = (edge, edge) if isinstance(edge, int) else edge
        return int(wide * factor), int(high * factor)

    def _make(self, task: Task, controlnet: str | None) -> Any:
        extra = {} if controlnet is None else {"controlnet": self._controlnet(controlnet)}
        name = type(self.base).__name__
        try:
            pipeline = _AUTOMATIC[task].from_pipe(self.base, **extra)
        except ValueError as error:
            if task == "text2image" and controlnet is None:
                return self.base
            what = f"{task} with a ControlNet" if controlnet else task
            raise NotSupported(
                f"The model's pipeline ({name}) cannot do '{what}'.", hint="Use another model for it."
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _controlnet(self, name: str) -> Any:
        if name not in self._controlnets:
            path = self.controlnets()[name]
            try:
                network = ControlNetModel.from_pretrained(
                    path, dtype=self.base.dtype, use_safetensors=True, local_files_only=True
                )
            except (OSError, ValueError) as error:
                raise ModelLoadFailed(
                    f"ControlNet '{name}' cannot be loaded: {str(error).splitlines()[0][:200]}",
                    hint="It needs config.json and .safetensors weights.",
                ) from error
            self._controlnets[name] = network.to(self.base.device)
        return self._controlnets[name]
