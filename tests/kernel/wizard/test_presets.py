"""The presets: the published ones, each of which makes a configuration that a server starts with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lollms_kernel.config.load import load_config
from lollms_kernel.drafts import Draft
from lollms_kernel.errors import ConfigError
from lollms_kernel.kernel import LocalKernel
from lollms_kernel.plugins import load_plugins
from lollms_kernel.testing import ServerProcess
from lollms_kernel.wizard import PRESETS, Answers, Preset, fill, find_preset

O_CPU = ("my_ollama_cpu", "ollama_binding", {"host": "http://localhost:11434"})
O_GPU = ("my_ollama_gpu", "ollama_binding", {"host": "http://localhost:11434"})
GGUF = {"models_folder": "models/gguf", "n_ctx": 4096}
L_CPU = ("my_llamacpp_cpu", "llamacpp_binding", {**GGUF, "n_gpu_layers": 0})
L_GPU = ("my_llamacpp_gpu", "llamacpp_binding", {**GGUF, "n_gpu_layers": -1})
H_CPU = ("my_hf_cpu", "llamacpp_binding", {**GGUF, "n_gpu_layers": 0})
H_GPU = ("my_hf_gpu", "llamacpp_binding", {**GGUF, "n_gpu_layers": -1})
OA: tuple[str, str, dict[str, Any]] = ("my_openai_api", "openai_binding", {})
DE = ("my_dalle3_api", "dalle_binding", {"default_model": "dall-e-3"})
D = (
    "my_diffusers_gpu",
    "diffusers_binding",
    {"models_folder": "models/diffusers_models", "device": "cuda", "use_fp16": True},
)
G = ("my_gemini_api", "gemini_binding", {"auto_detect_limits": True})
G_TEXT = ("my_gemini_text_api", "gemini_binding", {"auto_detect_limits": True})
IMAGEN = (
    "my_imagen3_api",
    "gemini_image_binding",
    {
        "default_model": "imagen-3.0-generate-002",
        "default_aspect_ratio": "1:1",
        "default_number_of_images": 1,
    },
)
PUBLISHED: dict[str, tuple[Any, Any, str]] = {
    "Ollama CPU (Default Text)": (O_CPU, None, "none"),
    "Ollama GPU (Default Text)": (O_GPU, None, "semaphore"),
    "Ollama GPU + Diffusers GPU": (O_GPU, D, "semaphore"),
    "Ollama GPU + DALL-E 3": (O_GPU, DE, "semaphore"),
    "OpenAI API (Text & Image)": (OA, DE, "none"),
    "OpenAI API + Diffusers GPU": (OA, D, "semaphore"),
    "LlamaCpp CPU (Local Text)": (L_CPU, None, "none"),
    "LlamaCpp GPU (Local Text)": (L_GPU, None, "semaphore"),
    "LlamaCpp GPU + Diffusers GPU": (L_GPU, D, "semaphore"),
    "LlamaCpp GPU + DALL-E 3": (L_GPU, DE, "semaphore"),
    "Gemini API (Text & Vision)": (G, None, "none"),
    "Gemini API + Diffusers GPU": (G, D, "semaphore"),
    "Gemini API + DALL-E 3": (G, DE, "none"),
    "Gemini API (Text/Vision) + Imagen 3 API (Image Gen)": (G_TEXT, IMAGEN, "none"),
    "Hugging Face CPU (Local Text)": (H_CPU, None, "none"),
    "Hugging Face GPU (Local Text)": (H_GPU, None, "semaphore"),
    "Hugging Face GPU + Diffusers GPU": (H_GPU, D, "semaphore"),
    "Hugging Face GPU + DALL-E 3": (H_GPU, DE, "semaphore"),
}
"""Text and image instance and GPU strategy of every preset that lollms_server's wizard had."""

EVERY = pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)


def set_up(folder: Path, answers: Answers) -> Path:
    """Write what the answers say into a folder for configurations."""
    config_dir = folder / "lollms_configs"
    types = LocalKernel(load_config(config_dir), load_plugins()).binding_types
    draft = Draft(config_dir, types)
    fill(draft, answers)
    draft.write()
    return config_dir


def test_the_presets_are_the_published_ones_in_alphabetical_order() -> None:
    names = [preset.name for preset in PRESETS]

    assert set(names) == PUBLISHED.keys()
    assert [name.lower() for name in names] == sorted(name.lower() for name in names)


def test_the_page_about_setting_up_lists_them_with_their_instances() -> None:
    page = (Path(__file__).parents[3] / "docs" / "setup.md").read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")][1:]

    def cell(preset: Preset, kind: str) -> str:
        named = [
            f"`{part.name}`: {part.type.removesuffix('_binding')}"
            for part in preset.parts
            if part.kind == kind
        ]
        return named[0] if named else "–"

    assert rows == [
        [preset.name, cell(preset, "ttt"), cell(preset, "tti"), preset.gpu_strategy] for preset in PRESETS
    ]


@EVERY
def test_given_a_preset_when_written_then_map_defaults_strategy_and_settings_are_the_published_ones(
    tmp_path: Path, preset: Preset
) -> None:
    text, image, strategy = PUBLISHED[preset.name]

    config_dir = set_up(tmp_path, Answers(preset=preset))

    main = yaml.safe_load((config_dir / "main_config.yaml").read_text())
    parts = [part for part in (text, image) if part is not None]
    assert main["bindings_map"] == {name: type_name for name, type_name, _ in parts}
    assert main["defaults"] == {"ttt_binding": text[0], **({"tti_binding": image[0]} if image else {})}
    assert main["resource_manager"]["gpu_strategy"] == strategy
    for name, type_name, settings in parts:
        written = yaml.safe_load((config_dir / "bindings" / f"{name}.yaml").read_text())
        assert {key: value for key, value in written.items() if key != "__version__"} == {
            "type": type_name,
            **settings,
        }


@EVERY
def test_given_a_preset_when_written_then_a_server_starts_and_lists_its_instances(
    tmp_path: Path, preset: Preset
) -> None:
    set_up(tmp_path, Answers(preset=preset))

    with ServerProcess(root=tmp_path) as server:
        listed = httpx.get(f"{server.url}/api/v1/list_bindings", timeout=30).json()
        defaults = httpx.get(f"{server.url}/api/v1/get_default_bindings", timeout=30).json()["defaults"]

    for part in preset.parts:
        instance = listed["binding_instances"][part.name]
        broken = instance.get("state") == "failed"
        assert not broken or part.type not in listed["binding_types"] or instance["hint"], instance
        assert defaults[f"{part.kind}_binding"] == part.name


def test_given_a_hugging_face_preset_when_chosen_then_it_says_what_it_is_here() -> None:
    for preset in PRESETS:
        assert any("llama.cpp" in note for note in preset.notes) == preset.name.startswith("Hugging Face")


@pytest.mark.parametrize(
    "written", ["ollama cpu default text", "OLLAMA-CPU-DEFAULT-TEXT", "Ollama CPU (Default Text)"]
)
def test_given_a_name_in_another_spelling_when_looked_up_then_the_preset_is_found(written: str) -> None:
    assert find_preset(written).name == "Ollama CPU (Default Text)"


def test_given_an_unknown_name_when_looked_up_then_the_nearest_is_named() -> None:
    with pytest.raises(ConfigError, match="no preset 'Ollama CPU Tekst'") as caught:
        find_preset("Ollama CPU Tekst")

    assert "Did you mean 'Ollama CPU (Default Text)'?" in str(caught.value.hint)


# --- answers ------------------------------------------------------------------------------------------------


def test_given_an_instance_that_is_there_when_a_preset_names_it_then_its_other_settings_stay(
    tmp_path: Path,
) -> None:
    ollama = find_preset("Ollama CPU (Default Text)")
    set_up(tmp_path, Answers(preset=ollama, instances={"my_ollama_cpu": {"default_model": "m:1b"}}))

    config_dir = set_up(tmp_path, Answers(preset=ollama, instances={"my_ollama_cpu": {"num_ctx": 8192}}))

    written = yaml.safe_load((config_dir / "bindings" / "my_ollama_cpu.yaml").read_text())
    assert (written["default_model"], written["num_ctx"]) == ("m:1b", 8192)


def test_given_a_configuration_when_started_over_then_only_the_new_one_is_left(tmp_path: Path) -> None:
    set_up(tmp_path, Answers(preset=find_preset("Ollama GPU + DALL-E 3"), main={"server.port": 9700}))

    config_dir = set_up(tmp_path, Answers(preset=find_preset("LlamaCpp CPU (Local Text)"), start_over=True))

    main = yaml.safe_load((config_dir / "main_config.yaml").read_text())
    assert main["bindings_map"] == {"my_llamacpp_cpu": "llamacpp_binding"}
    assert "server" not in main
    assert sorted(file.name for file in (config_dir / "bindings").glob("*.yaml")) == ["my_llamacpp_cpu.yaml"]
    assert (config_dir / "bindings" / "my_ollama_gpu.yaml.bak").exists()


def test_given_a_mistake_when_filled_in_then_nothing_is_written(tmp_path: Path) -> None:
    llama = find_preset("LlamaCpp CPU (Local Text)")

    with pytest.raises(ConfigError, match="n_ctxx"):
        set_up(tmp_path, Answers(preset=llama, instances={"my_llamacpp_cpu": {"n_ctxx": 1}}))
    with pytest.raises(ConfigError, match=r"server\.port"):
        set_up(tmp_path, Answers(preset=llama, main={"server.port": 70000}))

    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
