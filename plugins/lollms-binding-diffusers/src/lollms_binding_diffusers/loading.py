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

from .device import Choice, choose, halves
from .hub import fetch_configuration
from .library import ModelSource, config_folder, has_pickles, weight_files
from .memory import freeing, is_exhaustion
from .paths import reason
from .settings import DiffusersSettings
from .tasks import TaskPipelines
from .weights import float32_bytes

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
    """Load one model, whose weights are on this machine. Raises ModelLoadFailed with what is wrong and the cure."""
    started = time.perf_counter()
    if source.problem is not None:
        raise ModelLoadFailed(f"Model '{source.name}' is not loaded: {source.problem}.")
    assert source.path is not None
    half = halves(torch, settings)
    variant, files = weight_files(source, half=half)
    if not files and has_pickles(source.path):
        raise ModelLoadFailed(
            f"Model '{source.name}' has pickled weights only: opening them may run any program.",
            hint="Get its .safetensors files.",
        )
    choice = choose(torch, settings, *float32_bytes(files))
    torch.set_num_threads(choice.threads)
    pipeline, checked, loras = freeing(
        f"loading '{source.name}'", lambda: _assembled(source, variant, settings, root, choice)
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
    source: ModelSource, variant: str | None, settings: DiffusersSettings, root: Path, choice: Choice
) -> tuple[Any, bool, tuple[str, ...]]:
    """The pipeline in its place, whether it has a safety checker, and the names of its LoRAs."""
    try:
        pipeline = _pipeline(source, variant, settings, choice)
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
        assert source.path is not None
        others = (root / text for text in (settings.vae_path, *settings.lora_paths) if text is not None)
        why = reason(error, root, source.path.parent, *(path.parent for path in others))
        raise ModelLoadFailed(
            f"Model '{source.name}' cannot be loaded: {why}", hint=_cure(source, error)
        ) from error
    return pipeline, checked, loras


def _pipeline(source: ModelSource, variant: str | None, settings: DiffusersSettings, choice: Choice) -> Any:
    dtype = getattr(torch, choice.dtype)
    if source.where == "file":
        return _single_file(source, settings, dtype)
    return DiffusionPipeline.from_pretrained(
        source.path, dtype=dtype, variant=variant, use_safetensors=True, local_files_only=True
    )


def _single_file(source: ModelSource, settings: DiffusersSettings, dtype: Any) -> Any:
    """A checkpoint in one file: its configuration lies beside it, or comes from the hub where that is allowed."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint

    assert source.path is not None
    config = config_folder(source.path)
    if not config.is_dir():
        checkpoint = load_single_file_checkpoint(str(source.path), local_files_only=True)
        repo = fetch_diffusers_config(checkpoint)["pretrained_model_name_or_path"]
        if not settings.allow_downloads or repo not in settings.hub_models:
            raise ModelLoadFailed(
                f"Model '{source.name}' is a single file, and its configuration is not there.",
                hint=f"Put a diffusers folder without weights beside it, named '{config.name}'; or set "
                f"`allow_downloads: true` and name '{repo}' in `hub_models`.",
            )
        config = fetch_configuration(repo)
    kind = getattr(diffusers, DiffusionPipeline.load_config(config)["_class_name"])
    return kind.from_single_file(str(source.path), dtype=dtype, config=str(config), local_files_only=True)


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


def _cure(source: ModelSource, error: Exception) -> str:
    if isinstance(error, ImportError):
        return "Install the library that this says the model needs, with `pip install`, where the server is installed."
    if source.path is not None and _needs_sentencepiece(source.path):
        return "Its tokenizer is a file of sentencepiece: `pip install sentencepiece protobuf`, where the server is."
    return "The server's log has the details. An incomplete download is the usual reason."
