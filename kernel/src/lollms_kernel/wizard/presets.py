"""The presets of `lollms init`: names, instances and GPU strategies are those that lollms_server's wizard had."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Literal

import msgspec

from ..errors import ConfigError

Kind = Literal["ttt", "tti"]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One binding instance of a preset, and the kind of generation whose default it becomes."""

    name: str
    type: str
    kind: Kind
    settings: dict[str, Any] = {}
    note: str | None = None
    """What its user should know."""


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """Instances that go together, and how they share the GPU."""

    name: str
    gpu_strategy: Literal["none", "semaphore"]
    parts: tuple[Part, ...]

    @property
    def notes(self) -> list[str]:
        """What its user should know."""
        return [part.note for part in self.parts if part.note]


_GGUF_NOTE = (
    "{name} is an instance of llama.cpp: there is no binding for the transformers library. Most models on"
    " huggingface.co have a GGUF edition; put its file into models/gguf. Until then the built-in guide model answers."
)


def _ollama(where: str) -> Part:
    settings = {"host": "http://localhost:11434"}
    return Part(name=f"my_ollama_{where}", type="ollama_binding", kind="ttt", settings=settings)


def _llamacpp(where: str) -> Part:
    return Part(
        name=f"my_llamacpp_{where}",
        type="llamacpp_binding",
        kind="ttt",
        settings={
            "models_folder": "models/gguf",
            "n_gpu_layers": 0 if where == "cpu" else -1,
            "n_ctx": 4096,
        },
    )


def _hugging_face(where: str) -> Part:
    name = f"my_hf_{where}"
    return msgspec.structs.replace(_llamacpp(where), name=name, note=_GGUF_NOTE.format(name=name))


_OPENAI = Part(name="my_openai_api", type="openai_binding", kind="ttt")
_DALLE = Part(name="my_dalle3_api", type="dalle_binding", kind="tti", settings={"default_model": "dall-e-3"})
_GEMINI = Part(name="my_gemini_api", type="gemini_binding", kind="ttt", settings={"auto_detect_limits": True})
_GEMINI_TEXT = msgspec.structs.replace(_GEMINI, name="my_gemini_text_api")
_IMAGEN = Part(
    name="my_imagen3_api",
    type="gemini_image_binding",
    kind="tti",
    settings={
        "default_model": "imagen-3.0-generate-002",
        "default_aspect_ratio": "1:1",
        "default_number_of_images": 1,
    },
)
_DIFFUSERS = Part(
    name="my_diffusers_gpu",
    type="diffusers_binding",
    kind="tti",
    settings={"models_folder": "models/diffusers_models", "device": "cuda", "use_fp16": True},
)


def _preset(name: str, gpu_strategy: Literal["none", "semaphore"], *parts: Part) -> Preset:
    return Preset(name=name, gpu_strategy=gpu_strategy, parts=parts)


PRESETS: tuple[Preset, ...] = (
    _preset("Gemini API (Text & Vision)", "none", _GEMINI),
    _preset("Gemini API (Text/Vision) + Imagen 3 API (Image Gen)", "none", _GEMINI_TEXT, _IMAGEN),
    _preset("Gemini API + DALL-E 3", "none", _GEMINI, _DALLE),
    _preset("Gemini API + Diffusers GPU", "semaphore", _GEMINI, _DIFFUSERS),
    _preset("Hugging Face CPU (Local Text)", "none", _hugging_face("cpu")),
    _preset("Hugging Face GPU (Local Text)", "semaphore", _hugging_face("gpu")),
    _preset("Hugging Face GPU + DALL-E 3", "semaphore", _hugging_face("gpu"), _DALLE),
    _preset("Hugging Face GPU + Diffusers GPU", "semaphore", _hugging_face("gpu"), _DIFFUSERS),
    _preset("LlamaCpp CPU (Local Text)", "none", _llamacpp("cpu")),
    _preset("LlamaCpp GPU (Local Text)", "semaphore", _llamacpp("gpu")),
    _preset("LlamaCpp GPU + DALL-E 3", "semaphore", _llamacpp("gpu"), _DALLE),
    _preset("LlamaCpp GPU + Diffusers GPU", "semaphore", _llamacpp("gpu"), _DIFFUSERS),
    _preset("Ollama CPU (Default Text)", "none", _ollama("cpu")),
    _preset("Ollama GPU (Default Text)", "semaphore", _ollama("gpu")),
    _preset("Ollama GPU + DALL-E 3", "semaphore", _ollama("gpu"), _DALLE),
    _preset("Ollama GPU + Diffusers GPU", "semaphore", _ollama("gpu"), _DIFFUSERS),
    _preset("OpenAI API (Text & Image)", "none", _OPENAI, _DALLE),
    _preset("OpenAI API + Diffusers GPU", "semaphore", _OPENAI, _DIFFUSERS),
)
"""In alphabetical order, as the wizard shows them."""

DEFAULT = "LlamaCpp CPU (Local Text)"
"""The one that works on every machine, without account and without download."""


def find_preset(name: str) -> Preset:
    """The preset of this name, in any case and with any punctuation. Raises ConfigError with the nearest one."""
    names = {_plain(preset.name): preset for preset in PRESETS}
    found = names.get(_plain(name))
    if found is not None:
        return found
    wanted = _plain(name)
    # what is typed is mostly the beginning of a name
    beginnings = {known[: len(wanted)]: preset for known, preset in reversed(names.items())}
    near = get_close_matches(wanted, beginnings, n=1)
    advice = f"Did you mean '{beginnings[near[0]].name}'? " if near else ""
    raise ConfigError(f"There is no preset '{name}'.", hint=f"{advice}`lollms init --list` shows all.")


def _plain(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())
