"""Which files of weights are loaded where a model has them in two precisions, and what they take up in memory."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from lollms_binding_diffusers import DiffusersBinding, loading
from lollms_binding_diffusers.library import read_folder, weight_files
from lollms_binding_diffusers.weights import choose_weights, float32_bytes

from .conftest import draw, order, pixels

Open = Callable[..., Awaitable[DiffusersBinding]]
PARTS = ("unet", "vae", "text_encoder")


def names(*groups: str) -> list[str]:
    return [name for group in groups for name in group.split()]


UNET = "unet/diffusion_pytorch_model.safetensors"
UNET16 = "unet/diffusion_pytorch_model.fp16.safetensors"
TEXT = "text_encoder/model-00001-of-00002.safetensors text_encoder/model-00002-of-00002.safetensors"
TEXT16 = (
    "text_encoder/model.fp16-00001-of-00002.safetensors text_encoder/model.fp16-00002-of-00002.safetensors"
)
OLD16 = (
    "text_encoder/model-00001-of-00002.fp16.safetensors text_encoder/model-00002-of-00002.fp16.safetensors"
)
OTHERS = "all.safetensors unet/diffusion_pytorch_model.non_ema.safetensors vae_1_0/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("there", "half", "variant", "chosen"),
    [
        (names(UNET, TEXT, OTHERS), True, None, names(TEXT, UNET)),
        (names(UNET16, TEXT16, OTHERS), False, "fp16", names(TEXT16, UNET16)),
        (names(UNET, UNET16, TEXT, TEXT16), False, None, names(TEXT, UNET)),
        (names(UNET, UNET16, TEXT, TEXT16), True, "fp16", names(TEXT16, UNET16)),
        (names(UNET, UNET16, TEXT, OLD16), True, "fp16", names(OLD16, UNET16)),
        (names(UNET16, TEXT), False, "fp16", names(TEXT, UNET16)),
        (names(UNET, UNET16, TEXT), True, "fp16", names(TEXT, UNET16)),
        (names(OTHERS), True, None, []),
    ],
)
def test_one_precision_is_chosen(
    there: list[str], half: bool, variant: str | None, chosen: list[str]
) -> None:
    found, files = choose_weights(there, PARTS, half=half)
    assert (found, sorted(files)) == (variant, sorted(chosen))


def halve(folder: Path, *, keep: bool) -> None:
    """Give each part of a model its weights in half precision too, or instead."""
    for part in PARTS:
        for file in (folder / part).glob("*.safetensors"):
            weights = {name: value.half() for name, value in load_file(file).items()}
            save_file(weights, file.with_suffix(".fp16.safetensors"), {"format": "pt"})
            if not keep:
                file.unlink()


def spoil_whole(folder: Path) -> None:
    """Leave half precision as the only one that can be read."""
    for part in PARTS:
        next(folder.glob(f"{part}/*[!6].safetensors")).write_bytes(b"")


@pytest.fixture
def model(root: Path) -> Any:
    folder = root / "models" / "diffusers_models" / "precise"
    shutil.copytree(folder.parent / "tiny", folder)
    yield folder
    shutil.rmtree(folder)


async def test_half_precision_is_loaded_where_it_is_computed_in(
    open_binding: Open, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halve(model, keep=True)
    spoil_whole(model)
    monkeypatch.setattr(loading, "halves", lambda *_: True)
    [output] = await draw(await open_binding(), order(model="precise"))
    [whole] = await draw(await open_binding(), order(model="tiny"))
    assert abs(pixels(output) - pixels(whole)).max() <= 8


async def test_half_precision_alone_is_loaded_on_a_cpu(open_binding: Open, model: Path) -> None:
    halve(model, keep=False)
    [output] = await draw(await open_binding(), order(model="precise"))
    assert output.metadata["dtype"] == "float32"


async def test_a_listing_counts_one_precision(open_binding: Open, model: Path) -> None:
    binding = await open_binding()
    before = (await binding.get_model_info("precise")).size
    halve(model, keep=True)
    (model / "everything.safetensors").write_bytes(b"x" * 9999)
    assert (await binding.get_model_info("precise")).size == before


@pytest.mark.parametrize("half", [False, True])
def test_memory_is_counted_by_numbers_and_not_by_the_size_of_files(model: Path, half: bool) -> None:
    _, whole = weight_files(read_folder(model, "precise"))
    expected = float32_bytes(whole)
    numbers = [sum(value.numel() for value in load_file(file).values()) for file in whole]
    halve(model, keep=half)
    variant, halved = weight_files(read_folder(model, "precise"), half=half)
    assert variant == "fp16"
    assert float32_bytes(halved) == expected
    assert expected == (4 * sum(numbers), 4 * max(numbers))


def test_an_unreadable_file_is_counted_by_its_size(tmp_path: Path) -> None:
    for content in (b"", b"cut off", b"\xff" * 400):
        (tmp_path / "x").write_bytes(content)
        assert float32_bytes([tmp_path / "x"])[0] == len(content) // 4 * 4
