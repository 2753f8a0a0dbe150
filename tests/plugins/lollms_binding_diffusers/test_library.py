"""Which models there are, and which are never opened."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lollms_binding_diffusers import DiffusersBinding
from lollms_binding_diffusers.library import DEMONSTRATION, Library
from lollms_binding_diffusers.pipeline_kinds import kind_of
from lollms_kernel.errors import ModelLoadFailed, ModelNotFound

from .conftest import draw, order, pixels

Open = Callable[..., Awaitable[DiffusersBinding]]


def folder_with(path: Path, index: dict[str, Any]) -> Path:
    path.mkdir(parents=True)
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def test_folders_files_and_the_packaged_model_are_listed(tmp_path: Path) -> None:
    folder_with(tmp_path / "b", {"_class_name": "FluxPipeline"})
    folder_with(tmp_path / "owner" / "a", {"_class_name": "StableAudioPipeline"})
    folder_with(tmp_path / ".hidden", {"_class_name": "FluxPipeline"})
    (tmp_path / "one.safetensors").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "old.ckpt").write_bytes(b"x")
    sources = {source.name: source for source in Library(tmp_path).sources()}
    assert list(sources) == ["b", "one.safetensors", "owner/a", DEMONSTRATION]
    assert sources["owner/a"].kind.output == "audio"
    assert Library(tmp_path).find("one").name == "one.safetensors"
    assert Library(tmp_path).find(None).name == "b"
    assert Library(tmp_path, default="owner/a").find(None).name == "owner/a"


@pytest.mark.parametrize("name", ["../b", "/etc/passwd", "b/../b", "", "no such model", "owner"])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    folder_with(tmp_path / "models" / "b", {"_class_name": "FluxPipeline"})
    folder_with(tmp_path / "b2", {"_class_name": "FluxPipeline"})
    library = Library(tmp_path / "models")
    if not name:
        assert library.find(name).name == "b"  # none named: the first
        return
    with pytest.raises(ModelNotFound, match="There is no image model"):
        library.find(name)


@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "x.pt"])
def test_pickles_are_refused_with_the_cure(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelLoadFailed, match="pickle") as refused:
        Library(tmp_path).find(name)
    assert "safetensors" in str(refused.value.hint)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "it ran")


async def test_pickled_weights_in_a_folder_are_never_opened(
    open_binding: Open, root: Path, tmp_path: Path
) -> None:
    target = root / "models" / "diffusers_models" / "trap"
    shutil.copytree(root / "models" / "diffusers_models" / "tiny", target)
    sprung = tmp_path / "sprung"
    for file in target.glob("**/*.safetensors"):
        file.with_suffix(".bin").write_bytes(pickle.dumps(Trap(sprung)))
        file.unlink()
    with pytest.raises(ModelLoadFailed, match="pickled weights only"):
        await draw(await open_binding(), order(model="trap"))
    whole = root / "models" / "diffusers_models" / "tiny" / "unet"
    shutil.copy(next(whole.glob("*.safetensors")), target / "unet")
    with pytest.raises(ModelLoadFailed):
        await draw(await open_binding(), order(model="trap"))
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"_class_name": ["mine.py", "Mine"]}, "own code"),
        ({"_class_name": "StableDiffusionPipeline", "unet": ["evil", "Net"]}, "own code"),
        ({}, "names no pipeline"),
    ],
)
async def test_models_that_bring_code_are_listed_and_not_run(
    open_binding: Open, root: Path, index: dict[str, Any], reason: str
) -> None:
    name = f"coded{abs(hash(str(index)))}"
    folder = folder_with(root / "models" / "diffusers_models" / name, index)
    (folder / "unet").mkdir()
    (folder / "unet" / "evil.py").write_text("raise SystemExit('it ran')")
    binding = await open_binding()
    info = await binding.get_model_info(name)
    assert reason in info.details["error"]
    with pytest.raises(ModelLoadFailed, match=reason):
        await draw(binding, order(model=name))


async def test_a_broken_folder_says_what_is_wrong(open_binding: Open, root: Path) -> None:
    target = root / "models" / "diffusers_models" / "broken"
    shutil.copytree(root / "models" / "diffusers_models" / "tiny", target)
    next((target / "unet").glob("*.safetensors")).write_bytes(b"cut off")
    binding = await open_binding()
    with pytest.raises(ModelLoadFailed, match="'broken' cannot be loaded") as failed:
        await draw(binding, order(model="broken"))
    assert "incomplete download" in str(failed.value.hint)
    assert len(await draw(binding, order())) == 1


async def test_hub_models_need_the_operators_permission(open_binding: Open) -> None:
    names = {"hub_models": ["owner/model"]}
    with pytest.raises(ModelNotFound, match="owner/model") as refused:
        await draw(await open_binding(**names), order(model="owner/model"))
    assert "allow_downloads" in str(refused.value.hint)
    binding = await open_binding(**names, allow_downloads=True)
    assert "owner/model" in [info.name for info in await binding.list_models()]
    with pytest.raises(ModelNotFound):
        await draw(binding, order(model="owner/another"))


async def test_a_single_file_is_loaded_with_the_configuration_beside_it(
    open_binding: Open, root: Path
) -> None:
    from . import tiny_models as tiny

    models = root / "models" / "diffusers_models"
    tiny.single_file(models / "tiny", models / "packed.safetensors")
    binding = await open_binding()
    [packed] = await draw(binding, order(model="packed"))
    [folder] = await draw(binding, order())
    assert packed.metadata["model"] == "packed.safetensors"
    assert int(abs(pixels(packed) - pixels(folder)).max()) == 0


async def test_a_single_file_alone_says_what_it_needs_offline(open_binding: Open, root: Path) -> None:
    models = root / "models" / "diffusers_models"
    from . import tiny_models as tiny

    tiny.single_file(models / "tiny", models / "alone.safetensors", with_config=False)
    with pytest.raises(ModelLoadFailed) as failed:
        await draw(await open_binding(), order(model="alone"))
    assert "alone.config" in str(failed.value.hint)


@pytest.mark.parametrize(
    ("name", "output", "model_type"),
    [
        ("StableDiffusionXLPipeline", "image", "tti"),
        ("FluxPipeline", "image", "tti"),
        ("HunyuanDiTPipeline", "image", "tti"),
        ("AnimateDiffPipeline", "video", "ttv"),
        ("CogVideoXPipeline", "video", "ttv"),
        ("HunyuanVideoPipeline", "video", "ttv"),
        ("WanPipeline", "video", "ttv"),
        ("AudioLDM2Pipeline", "audio", "ttm"),
        ("StableAudioPipeline", "audio", "ttm"),
    ],
)
def test_a_pipelines_name_says_what_it_makes(name: str, output: str, model_type: str) -> None:
    kind = kind_of(name)
    assert (kind.output, kind.model_type) == (output, model_type)
