"""The pipelines of one model, one for each task, all sharing the same weights. For the engine's thread only."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any, Final, Literal

import diffusers
from diffusers import (
    AutoModel,
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
)

from lollms_kernel.errors import InvalidRequest, ModelLoadFailed, NotSupported
from lollms_kernel.types import Notice

from .library import OWN_FACTS
from .memory import give_back
from .parameters import STEP_OF_SIZES
from .paths import reason
from .settings import DEFAULT_SCHEDULER, DiffusersSettings

Task = Literal["text2image", "image2image", "inpaint"]

_AUTOMATIC: dict[Task, Any] = {
    "text2image": AutoPipelineForText2Image,
    "image2image": AutoPipelineForImage2Image,
    "inpaint": AutoPipelineForInpainting,
}
_REDUCTIONS: Final = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
"""What pipelines call the pixels that one latent stands for."""
_FRAME_REDUCTIONS: Final = (
    "vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor",
)  # fmt: skip


def accepted(pipeline: Any) -> dict[str, Any]:
    """The names that a pipeline is called with, and its own defaults for them."""
    return {
        name: parameter.default for name, parameter in inspect.signature(pipeline.__call__).parameters.items()
    }


class TaskPipelines:
    """Pipelines made from one loaded pipeline, by what is asked of it. One ControlNet is kept, the last one."""

    def __init__(self, base: Any, settings: DiffusersSettings, root: Path) -> None:
        self.base = base
        self._settings = settings
        self._root = root
        self._made: dict[tuple[Task, str | None], Any] = {}
        self._kept: tuple[str, Any] | None = None
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

    def new_scheduler(self, requested: str | None, of_model: str | None) -> tuple[Any, list[Notice]]:
        """A fresh scheduler, and a notice where the wish for another one could not be followed.

        It is what the request wants, else the settings beside their default, else the model's facts, else that
        default, else the model's own. Raises InvalidRequest for a request's that the model cannot use.
        """
        own = self._own_scheduler
        if own is None:
            return None, []
        of_settings = self._settings.scheduler_type
        told = None if of_settings == DEFAULT_SCHEDULER else of_settings
        wanted, known = requested or told or of_model or of_settings or type(own).__name__, _usable(own)
        if wanted in known:
            return known[wanted].from_config(own.config), []
        if requested is not None:
            raise InvalidRequest(
                f"parameters.scheduler is '{requested}', which this model cannot use.",
                hint=f"It can use: {', '.join(sorted(known))}.",
            )
        notices = []
        if told or of_model:
            where, used = "scheduler_type" if told else OWN_FACTS, type(own).__name__
            text = f"{where} says '{wanted}', which this model cannot use; {used} was used."
            notices.append(Notice("scheduler_replaced", text, {"wanted": wanted, "used": used}))
        return type(own).from_config(own.config), notices

    def put_away(self) -> None:
        """Move parts that wait in main memory back there; a pipeline made from the base does not know of them."""
        self.base.maybe_free_model_hooks()

    @property
    def native_size(self) -> tuple[int, int] | None:
        """Width and height that the model was made for, else those that its pipeline is made for."""
        edge = getattr(self.base, "default_sample_size", None) or self._of_network("sample_size")
        factor = _first_number(self.base, _REDUCTIONS)
        if edge is not None and factor is not None:
            high, wide = (edge, edge) if isinstance(edge, int) else edge
            return int(wide * factor), int(high * factor)
        defaults = accepted(self.base)
        high, wide = defaults.get("height"), defaults.get("width")
        return (wide, high) if isinstance(wide, int) and isinstance(high, int) else None

    @property
    def step_of_sizes(self) -> int:
        """Widths and heights must be multiples of it: of the pixels of a latent, and of a patch of latents."""
        if "use_resolution_binning" in accepted(self.base):
            return STEP_OF_SIZES  # such a pipeline draws the nearest size that it knows and resizes that
        processor = getattr(self.base, "image_processor", None)
        patch = self._of_network("patch_size") or 1
        reduction = _first_number(self.base, _REDUCTIONS) or 1
        return math.lcm(
            STEP_OF_SIZES,
            getattr(getattr(processor, "config", None), "vae_scale_factor", None) or 1,
            reduction * (patch if isinstance(patch, int) else patch[-1]),
        )

    @property
    def step_of_frames(self) -> int:
        """Videos have one frame more than a multiple of it."""
        return _first_number(self.base, _FRAME_REDUCTIONS) or 1

    @property
    def native_guidance(self) -> float | None:
        """The guidance that the model's pipeline has when it is not told any."""
        defaults = accepted(self.base)
        found = (defaults.get(name) for name in ("guidance_scale", "true_cfg_scale"))
        return next((float(value) for value in found if isinstance(value, int | float)), None)

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
        if controlnet is not None:
            self._check_fit(pipeline, controlnet, extra["controlnet"])
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _check_fit(self, pipeline: Any, name: str, network: Any) -> None:
        """Raise NotSupported where a ControlNet was made for models of another family."""
        width = self._of_network("cross_attention_dim")
        kinds = type(pipeline)._get_signature_types()["controlnet"]
        if type(network) in kinds and getattr(network.config, "cross_attention_dim", width) == width:
            return
        others = ", ".join(other for other in self.controlnets() if other != name)
        raise NotSupported(
            f"ControlNet '{name}' ({type(network).__name__}) was not made for models like this one "
            f"({type(self.base).__name__}).",
            hint=f"Name another one in controlnet_model: {others or 'there is none'}.",
        )

    def _of_network(self, name: str) -> Any:
        """A field of the configuration of the network that removes the noise; None without one."""
        network = getattr(self.base, "unet", None) or getattr(self.base, "transformer", None)
        return getattr(getattr(network, "config", None), name, None)

    def _controlnet(self, name: str) -> Any:
        if self._kept is not None and self._kept[0] != name:
            self._kept = None
            self._made = {key: pipeline for key, pipeline in self._made.items() if key[1] is None}
            give_back()
        if self._kept is None:
            path = self.controlnets()[name]
            try:
                network = AutoModel.from_pretrained(
                    str(path), dtype=self.base.dtype, use_safetensors=True, local_files_only=True
                )
            except (OSError, ValueError) as error:
                raise ModelLoadFailed(
                    f"ControlNet '{name}' cannot be loaded: {reason(error, self._root, path.parent)}",
                    hint="It needs config.json and .safetensors weights.",
                ) from error
            self._kept = name, network.to(self.base._execution_device)
        return self._kept[1]


def _usable(own: Any) -> dict[str, Any]:
    """The schedulers by name that can take the place of a model's own, itself included."""
    kinds = [kind for kind in getattr(own, "compatibles", []) if _same_course(kind, own)]
    if diffusers.DDIMScheduler in kinds:
        kinds.append(diffusers.LCMScheduler)  # for the same networks, which the library does not list
    return {kind.__name__: kind for kind in (*kinds, type(own))}


def _same_course(kind: Any, own: Any) -> bool:
    """Whether a kind of scheduler can follow the course that the model was trained for: a flow needs its own sigmas."""
    return (
        not own.config.get("use_flow_sigmas")
        or "use_flow_sigmas" in inspect.signature(kind.__init__).parameters
    )


def _first_number(pipeline: Any, names: tuple[str, ...]) -> int | None:
    found = (getattr(pipeline, name, None) for name in names)
    return next((int(value) for value in found if value), None)
