"""Loads a model with everything that the settings put onto it. Imports the engine: for the worker only."""

from __future__ import annotations

import importlib.util
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import diffusers
import msgspec
import torch
import transformers
from diffusers import AutoModel, DiffusionPipeline

from lollms_kernel.errors import LollmsError, ModelLoadFailed

from .device import Choice, choose
from .library import ModelSource, config_folder, has_pickles_only, weight_files, weights_of
from .memory import freeing, is_exhaustion
from .settings import DiffusersSettings
from .tasks import TaskPipelines

logger = logging.getLogger(__name__)

warnings.filterwarnings("ignore", module=r"(diffusers|transformers|torch|accelerate|peft)\b.*")
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in memory. Only the engine's thread may touch `tasks`."""

    source: ModelSource
    tasks: TaskPipelines
    choice: Choice
    loras: tuple[str, ...]
    safety_checker: bool
    seconds: float

    @property
    def facts(self) -> dict[str, Any]:
        """What was chosen, for model information and metadata."""
        return {
            **msgspec.structs.asdict(self.choice),
            "pipeline": type(self.tasks.base).__name__,
            "loras": list(self.loras),
            "safety_checker": self.safety_checker,
        }


def load_model(source: ModelSource, settings: DiffusersSettings, root: Path) -> LoadedModel:
    """Load one model. Raises ModelLoadFailed with what is wrong and the cure."""
    started = time.perf_counter()
    if source.problem is not None:
        raise ModelLoadFailed(f"Model '{source.name}' is not loaded: {source.problem}.")
    if source.path is not None and source.where == "folder" and has_pickles_only(source.path):
        raise ModelLoadFailed(
            f"Model '{source.name}' has pickled weights only: opening them may run any program.",
            hint="Get its .safetensors files.",
        )
    weights, largest = weights_of(source.path) if source.path is not None else (0, 0)
    choice = choose(torch, settings, weights, largest)
    torch.set_num_threads(choice.threads)
    pipeline, checked, loras = freeing(
        f"loading '{source.name}'", lambda: _assembled(source, settings, root, choice)
    )
    seconds = time.perf_counter() - started
    facts = msgspec.structs.asdict(choice)
    logger.info("model %s is loaded", source.name, extra={"facts": {**facts, "seconds": round(seconds, 2)}})
    return LoadedModel(
        source=source,
        tasks=TaskPipelines(pipeline, settings, root),
        choice=choice,
        loras=loras,
        safety_checker=checked,
        seconds=seconds,
    )


def _assembled(
    source: ModelSource, settings: DiffusersSettings, root: Path, choice: Choice
) -> tuple[Any, bool, tuple[str, ...]]:
    """The pipeline in its place, whether it has a safety checker, and the names of its LoRAs."""
    try:
        pipeline = _pipeline(source, settings, choice)
        checked = _put_on(pipeline, settings, root, choice)
        loras = _add_loras(pipeline, settings, root)
        _move(pipeline, choice)
    except LollmsError:
        raise
    except (
        Exception
    ) as error:  # the library raises anything for a broken file; to the caller all means the same
        if is_exhaustion(error):
            raise
        logger.warning("model %s", source.name, exc_info=True)
        raise ModelLoadFailed(
            f"Model '{source.name}' cannot be loaded: {_first_line(error)}", hint=_cure(source, error)
        ) from error
    return pipeline, checked, loras


def _pipeline(source: ModelSource, settings: DiffusersSettings, choice: Choice) -> Any:
    dtype = getattr(torch, choice.dtype)
    if source.where == "hub":
        if not settings.allow_downloads:
            raise ModelLoadFailed(
                f"Model '{source.name}' would have to be downloaded.",
                hint="Set `allow_downloads: true` in the instance file, or put the model into the models folder.",
            )
        return DiffusionPipeline.from_pretrained(source.name, dtype=dtype, use_safetensors=True)
    assert source.path is not None
    if source.where == "folder":
        return DiffusionPipeline.from_pretrained(
            source.path,
            dtype=dtype,
            variant=_variant(source.path),
            use_safetensors=True,
            local_files_only=True,
        )
    return _single_file(source.path, settings, dtype)


def _variant(folder: Path) -> str | None:
    """`fp16` where a part of the model lies there in no other precision, as in downloads of half the size."""
    parts: dict[Path, set[bool]] = {}
    for file in weight_files(folder):
        parts.setdefault(file.parent, set()).add(".fp16" in file.name)
    return "fp16" if {True} in parts.values() else None


def _single_file(path: Path, settings: DiffusersSettings, dtype: Any) -> Any:
    """A checkpoint in one file: its configuration lies beside it, or comes from the hub where that is allowed."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type, load_single_file_checkpoint

    config = config_folder(path)
    if config.is_dir():
        name = DiffusionPipeline.load_config(config)["_class_name"]
    else:
        kind = infer_diffusers_model_type(load_single_file_checkpoint(str(path), local_files_only=True))
        name = _class_of(kind)
    extra = {"config": str(config)} if config.is_dir() else {}
    offline = config.is_dir() or not settings.allow_downloads
    return getattr(diffusers, name).from_single_file(
        str(path), dtype=dtype, local_files_only=offline, **extra
    )


def _class_of(kind: str) -> str:
    """The pipeline class of a checkpoint whose type the library has recognised."""
    if kind.startswith("flux"):
        return "FluxPipeline"
    if kind.startswith("sd3"):
        return "StableDiffusion3Pipeline"
    if kind.startswith("xl"):
        return "StableDiffusionXLPipeline"
    return "StableDiffusionInpaintPipeline" if "inpainting" in kind else "StableDiffusionPipeline"


def _put_on(pipeline: Any, settings: DiffusersSettings, root: Path, choice: Choice) -> bool:
    """The VAE of the settings, the safety checker if wanted; returns whether one is there."""
    pipeline.set_progress_bar_config(disable=True)
    if settings.vae_path is not None:
        path = root / settings.vae_path
        if not path.is_dir():
            raise ModelLoadFailed(
                f"vae_path: there is no folder '{settings.vae_path}'.", hint="Name a VAE's diffusers folder."
            )
        vae = AutoModel.from_pretrained(
            str(path), dtype=getattr(torch, choice.dtype), use_safetensors=True, local_files_only=True
        )
        pipeline.register_modules(vae=vae)
    if "safety_checker" not in pipeline.config:
        return False
    if settings.enable_safety_checker is False:
        pipeline.register_modules(safety_checker=None)
        pipeline.register_to_config(requires_safety_checker=False)
    return pipeline.safety_checker is not None


def _add_loras(pipeline: Any, settings: DiffusersSettings, root: Path) -> tuple[str, ...]:
    names = []
    for number, text in enumerate(settings.lora_paths):
        path = root / text
        if path.suffix.lower() != ".safetensors" or not path.is_file():
            raise ModelLoadFailed(
                f"lora_paths: '{text}' is no .safetensors file.", hint="Name LoRA files in that format."
            )
        name = f"lora{number}"
        pipeline.load_lora_weights(
            str(path.parent), weight_name=path.name, adapter_name=name, local_files_only=True
        )
        names.append(name)
    if names:
        scales = [*settings.lora_scales, *[1.0] * len(names)][: len(names)]
        pipeline.set_adapters(names, scales)
    return tuple(Path(text).name for text in settings.lora_paths)


def _move(pipeline: Any, choice: Choice) -> None:
    if choice.attention_slicing and hasattr(pipeline, "enable_attention_slicing"):
        pipeline.enable_attention_slicing()
    if choice.placement == "model_offload":
        pipeline.enable_model_cpu_offload(device=choice.device)
    elif choice.placement == "sequential_offload":
        pipeline.enable_sequential_cpu_offload(device=choice.device)
    else:
        pipeline.to(choice.device)


def _needs_sentencepiece(folder: Path) -> bool:
    """Whether a tokenizer can be read by that library only, and it is missing; what is raised then blames another."""
    alone = (not (file.parent / "tokenizer.json").is_file() for file in folder.glob("*/spiece.model"))
    return any(alone) and importlib.util.find_spec("sentencepiece") is None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _cure(source: ModelSource, error: Exception) -> str:
    if isinstance(error, ImportError):
        return "Install the library that this says the model needs, with `pip install`, where the server is installed."
    if source.where == "folder" and source.path is not None and _needs_sentencepiece(source.path):
        return "Its tokenizer is a file of sentencepiece: `pip install sentencepiece protobuf`, where the server is."
    if source.where == "file" and source.path is not None and not config_folder(source.path).is_dir():
        return (
            f"Offline, a single file needs its configuration: a diffusers folder without weights beside it, named "
            f"'{config_folder(source.path).name}'; or set `allow_downloads: true`."
        )
    return "The server's log has the details. An incomplete download is the usual reason."
