"""Every well-known family of models goes the same way: text, image and mask as input, words, sizes, company, steps."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import io
import re
import shutil
import wave
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from lollms_binding_diffusers import DiffusersBinding
from lollms_binding_diffusers.pipeline_kinds import kind_of
from lollms_kernel.errors import InvalidRequest, ModelLoadFailed, NotSupported
from lollms_kernel.types import Notice

from .conftest import chunks_of, draw, image, order, outputs_of, pixels, steps_of

Open = Callable[..., Awaitable[DiffusersBinding]]
SIZE: dict[str, Any] = {"width": 64, "height": 96}


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What is peculiar to one family."""

    pipeline: str
    scheduler: str
    guidance: float
    edits: bool = True
    """Whether it changes images."""
    negative: bool = True
    """Whether it takes a negative prompt."""
    step: int = 8
    """What edges must be a multiple of."""
    preview: tuple[int, int] | None = (64, 96)
    """Size of the pictures on the way; None: there are none."""


FLOW = "FlowMatchEulerDiscreteScheduler"
SOLVER = "DPMSolverMultistepScheduler"
IMAGES = {
    "sd2": Family(pipeline="StableDiffusionPipeline", scheduler=SOLVER, guidance=7.5),
    "sdxl": Family(pipeline="StableDiffusionXLPipeline", scheduler=SOLVER, guidance=5.0),
    "sd3": Family(pipeline="StableDiffusion3Pipeline", scheduler=FLOW, guidance=7.0, step=16),
    "flux": Family(pipeline="FluxPipeline", scheduler=FLOW, guidance=3.5, negative=False, step=16),
    "pixart": Family(
        pipeline="PixArtSigmaPipeline", scheduler=SOLVER, guidance=4.5, edits=False, preview=(168, 256)
    ),
    "qwen": Family(pipeline="QwenImagePipeline", scheduler=FLOW, guidance=4.0, step=16, preview=None),
}
every = pytest.mark.parametrize("name", IMAGES)
editing = pytest.mark.parametrize("name", [name for name, family in IMAGES.items() if family.edits])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server's root with a model of each family."""
    from . import tiny_families as tiny

    folder = tmp_path_factory.mktemp("families")
    for name, build in tiny.FAMILIES.items():
        build(folder / "models" / "diffusers_models" / name)
    tiny.controlnet_xl(folder / "models" / "controlnet" / "edges-xl")
    tiny.controlnet_3(folder / "models" / "controlnet" / "edges-3")
    gc.freeze()  # each unloading collects garbage, and to look through the library itself takes longer than a test
    yield folder
    gc.unfreeze()


def differs(one: Any, other: Any) -> int:
    return int(abs(one - other).max())


def notices_of(chunks: list[Any]) -> list[str]:
    return [chunk.code for chunk in chunks if isinstance(chunk, Notice)]


# --- pictures --------------------------------------------------------------------------------------------------------


@every
async def test_a_family_draws_from_text_and_says_how(open_binding: Open, name: str) -> None:
    binding, family = await open_binding(), IMAGES[name]
    request = order("a cat", model=name, num_inference_steps=3, previews=1, **SIZE)
    chunks = await chunks_of(binding, request)
    [output] = outputs_of(chunks)
    assert output.mime_type == "image/png"
    with Image.open(io.BytesIO(output.data)) as picture:
        assert picture.size == (64, 96)
    facts = output.metadata
    assert (facts["model"], facts["size"], facts["steps"], facts["seed"]) == (name, "64x96", 3, 1)
    assert (facts["scheduler"], facts["guidance_scale"]) == (family.scheduler, family.guidance)
    assert notices_of(chunks) == ([] if family.preview else ["parameters_ignored"])
    assert (await binding.get_model_info(name)).details["pipeline"] == family.pipeline
    assert (steps_of(chunks)[-1].step, steps_of(chunks)[-1].total) == (3, 3)
    shown = [step.preview for step in steps_of(chunks) if step.preview is not None]
    assert {Image.open(io.BytesIO(preview)).size for preview in shown} == ({family.preview} - {None})


@every
async def test_everything_in_a_request_matters_and_nothing_else(open_binding: Open, name: str) -> None:
    binding = await open_binding()

    async def drawn(prompt: str = "a cat", **changes: Any) -> Any:
        wanted = {"model": name, "num_inference_steps": 3, **SIZE, **changes}
        return pixels((await draw(binding, order(prompt, **wanted)))[0])

    first = await drawn()
    assert differs(first, await drawn()) == 0
    assert differs(first, await drawn(seed=2)) > 8
    assert differs(first, await drawn("my red house")) > 0
    assert differs(first, await drawn(guidance_scale=20)) > 0
    assert (differs(first, await drawn(negative_prompt="ugly")) > 0) == IMAGES[name].negative


async def test_a_negative_prompt_without_effect_is_told(open_binding: Open) -> None:
    chunks = await chunks_of(await open_binding(), order(model="flux", negative_prompt="ugly", **SIZE))
    assert notices_of(chunks) == ["parameters_ignored"]
    assert "negative_prompt" not in outputs_of(chunks)[0].metadata


async def test_what_one_text_encoder_loses_and_another_reads_is_told(open_binding: Open) -> None:
    chunks = await chunks_of(await open_binding(), order("abcdefghijklmnopq", model="sd3", **SIZE))
    [notice] = [chunk for chunk in chunks if isinstance(chunk, Notice)]
    assert notice.details["tokenizers"] == ["tokenizer", "tokenizer_2"]
    assert (notice.details["read"], notice.details["lost"]) == (14, "opq")
    assert "tokenizer_3 reads all of it" in notice.message


@every
async def test_company_changes_nothing(open_binding: Open, name: str) -> None:
    binding = await open_binding(batch_window=1.0)
    wanted = [
        order(words, model=name, seed=seed, **SIZE)
        for seed, words in enumerate(("a cat", "two very red houses"))
    ]
    together = await asyncio.gather(*(draw(binding, request) for request in wanted))
    assert [output.metadata.get("batched_with") for [output] in together] == [1, 1]
    for request, [output] in zip(wanted, together, strict=True):
        [alone] = await draw(binding, request)
        assert differs(pixels(output), pixels(alone)) <= 2


@editing
async def test_an_image_is_changed_and_painted_over(open_binding: Open, name: str) -> None:
    binding = await open_binding()
    given, inside, outside = (
        image(size=(66, 100)),
        *(image("mask_image", size=(66, 100), colour=(c,) * 3) for c in (255, 0)),
    )
    base: dict[str, Any] = {"model": name, "kind": "i2i", "num_inference_steps": 4, "n": 2}
    results = {}
    for what, media in (("changed", [given]), ("painted", [given, inside]), ("kept", [given, outside])):
        chunks = await chunks_of(binding, order("a cat", *media, **base, strength=0.5))
        assert (steps_of(chunks)[-1].step, steps_of(chunks)[-1].total) == (2, 2)
        assert set(notices_of(chunks)) == {"input_resized"}
        first, second = outputs_of(chunks)
        step = IMAGES[name].step
        assert first.metadata["size"] == f"{66 // step * step}x{100 // step * step}"
        assert differs(pixels(first), pixels(second)) > 0
        [alone] = await draw(binding, order("a cat", *media, **{**base, "n": 1}, strength=0.5, seed=2))
        assert differs(pixels(alone), pixels(second)) <= 2
        results[what] = pixels(first)
    assert differs(results["painted"], results["kept"]) > 0


@pytest.mark.parametrize("name", ["sd2", "flux"])
async def test_a_strength_that_leaves_no_step_is_refused(open_binding: Open, name: str) -> None:
    wanted = order("a cat", image(), model=name, kind="i2i", strength=0.2, num_inference_steps=4)
    with pytest.raises(InvalidRequest, match=r"strength is 0\.2") as refused:
        await draw(await open_binding(), wanted)
    assert "0.25" in str(refused.value.hint)


async def test_a_family_that_changes_no_images_says_so(open_binding: Open) -> None:
    with pytest.raises(NotSupported, match=r"PixArtSigmaPipeline.*image2image"):
        await draw(await open_binding(), order("a cat", image(), model="pixart", kind="i2i"))


@pytest.mark.parametrize("name", [name for name, family in IMAGES.items() if family.step > 8])
async def test_sizes_that_a_family_cannot_draw_are_refused(open_binding: Open, name: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"width is 72: '{name}' draws multiples of 16") as refused:
        await draw(await open_binding(), order("a cat", model=name, width=72, height=64))
    assert "64 or 80" in str(refused.value.hint)


@pytest.mark.parametrize(("name", "size"), [("sd3", "64x64"), ("pixart", "256x256")])
async def test_without_a_size_a_model_draws_its_own(open_binding: Open, name: str, size: str) -> None:
    [output] = await draw(await open_binding(), order("a cat", model=name))
    assert output.metadata["size"] == size


@pytest.mark.parametrize(
    ("name", "wanted", "known"),
    [
        ("sd3", "DDIMScheduler", FLOW),
        ("flux", SOLVER, FLOW),
        ("wan", "DDIMScheduler", SOLVER),
        ("stableaudio", "DDIMScheduler", "EDMDPMSolverMultistepScheduler"),
    ],
)
async def test_a_scheduler_of_another_kind_is_refused_with_those_that_do(
    open_binding: Open, name: str, wanted: str, known: str
) -> None:
    with pytest.raises(InvalidRequest, match=wanted) as refused:
        await draw(await open_binding(), order("a cat", model=name, scheduler=wanted))
    assert known in str(refused.value.hint)
    assert wanted not in str(refused.value.hint)


async def test_weights_in_half_precision_alone_are_found(open_binding: Open, root: Path) -> None:
    models = root / "models" / "diffusers_models"
    shutil.copytree(models / "sdxl", models / "halved")
    for part in ("unet", "vae", "text_encoder"):
        for file in (models / "halved" / part).glob("*.safetensors"):
            file.rename(file.with_suffix(".fp16.safetensors"))
    binding = await open_binding()
    [whole], [halved] = [await draw(binding, order(model=name)) for name in ("sdxl", "halved")]
    assert differs(pixels(whole), pixels(halved)) == 0


def test_previews_of_xl_are_decoded_in_full_precision(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from diffusers import DiffusionPipeline

    from lollms_binding_diffusers.previews import preview

    pipeline = DiffusionPipeline.from_pretrained(
        root / "models" / "diffusers_models" / "sdxl", dtype=torch.float16
    )
    used, decode = [], pipeline.vae.decode

    def noticed(latents: Any, **options: Any) -> Any:
        used.append((latents.dtype, pipeline.vae.dtype))
        return decode(latents, **options)

    monkeypatch.setattr(pipeline.vae, "decode", noticed)
    with torch.inference_mode():
        assert preview(pipeline, torch.ones(1, 4, 8, 8, dtype=torch.float16), 0, (64, 64))
    assert used == [(torch.float32, torch.float32)]
    assert pipeline.vae.dtype == torch.float16


# --- ControlNet ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "network"), [("sdxl", "edges-xl"), ("sd3", "edges-3")])
async def test_a_control_image_leads_a_family_with_its_own_kind_of_controlnet(
    open_binding: Open, name: str, network: str
) -> None:
    binding = await open_binding()
    results = []
    for shade in (0, 255):
        control = image("controlnet_image", colour=(shade,) * 3)
        [output] = await draw(binding, order("a cat", control, model=name, controlnet_model=network))
        assert output.metadata["controlnet_model"] == network
        results.append(pixels(output))
    assert differs(*results) > 0


@pytest.mark.parametrize(("name", "network"), [("sd2", "edges-xl"), ("sdxl", "edges-3")])
async def test_a_controlnet_of_another_family_is_refused(open_binding: Open, name: str, network: str) -> None:
    wanted = order("a cat", image("controlnet_image"), model=name, controlnet_model=network)
    with pytest.raises(NotSupported, match=f"'{network}'.*was not made for") as refused:
        await draw(await open_binding(), wanted)
    assert "edges" in str(refused.value.hint)


# --- videos and sounds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "frames"), [("webp", 6), ("gif", 5)])
async def test_a_video_has_the_wanted_number_of_frames(open_binding: Open, kind: str, frames: int) -> None:
    request = order("a cat", kind="ttv", model="wan", num_frames=frames, video_format=kind, **SIZE)
    chunks = await chunks_of(await open_binding(), request)
    [output] = outputs_of(chunks)
    assert (output.type, output.mime_type) == ("video", f"image/{kind}")
    assert (output.metadata["num_frames"], output.metadata["guidance_scale"]) == (frames, 5.0)
    with Image.open(io.BytesIO(output.data)) as film:
        assert (film.n_frames, film.size) == (frames, (64, 96))
    assert (steps_of(chunks)[-1].step, steps_of(chunks)[-1].total) == (2, 2)


async def test_a_video_pipeline_without_a_place_for_images_says_so(open_binding: Open) -> None:
    with pytest.raises(NotSupported, match=r"WanPipeline.*takes no input"):
        await draw(
            await open_binding(), order("a cat", image(), kind="ttv", model="wan", num_frames=1, **SIZE)
        )


@pytest.mark.parametrize("half", [False, True])
async def test_stable_audio_makes_stereo_of_its_own_rate(open_binding: Open, half: bool) -> None:
    request = order("rain", kind="ttm", model="stableaudio", duration=0.1, n=2, negative_prompt="noise")
    chunks = await chunks_of(await open_binding(use_bf16=half), request)
    for output in outputs_of(chunks):
        assert (output.type, output.mime_type) == ("audio", "audio/wav")
        assert output.metadata["guidance_scale"] == 7.0
        with wave.open(io.BytesIO(output.data)) as sound:
            assert (sound.getframerate(), sound.getnchannels(), sound.getnframes()) == (8000, 2, 800)
    assert len(outputs_of(chunks)) == 2
    assert (steps_of(chunks)[-1].step, steps_of(chunks)[-1].total) == (2, 2)


# --- the library's pipelines -----------------------------------------------------------------------------------------


async def test_a_library_that_a_model_needs_is_named(open_binding: Open, root: Path) -> None:
    folder = root / "models" / "diffusers_models" / "needy"
    shutil.copytree(folder.parent / "stableaudio", folder)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("EDMDPMSolver", "CosineDPMSolver"))
    with pytest.raises(ModelLoadFailed, match="torchsde") as failed:
        await draw(await open_binding(), order("rain", kind="ttm", model="needy"))
    assert "pip install" in str(failed.value.hint)


async def test_a_tokenizer_that_needs_sentencepiece_says_so(
    open_binding: Open, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec

    def without(name: str, *package: str | None) -> Any:
        return None if name == "sentencepiece" else find_spec(name, *package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    folder = root / "models" / "diffusers_models" / "pieces"
    shutil.copytree(folder.parent / "pixart", folder)
    (folder / "tokenizer" / "tokenizer.json").rename(folder / "tokenizer" / "spiece.model")
    with pytest.raises(ModelLoadFailed) as failed:
        await draw(await open_binding(), order(model="pieces"))
    assert "pip install sentencepiece" in str(failed.value.hint)


def test_what_a_pipeline_of_the_library_makes_is_told_by_its_name() -> None:
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "pipelines"
    answer = re.compile(r"Output\(\s*(image|frame|video|audio)s?=")
    seen, wrong = 0, {}
    for file in folder.glob("*/pipeline_*.py"):
        for part in re.split(r"^class ", file.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            made = {{"frame": "video"}.get(word, word) for word in answer.findall(part)}
            name = re.split(r"\W", part, maxsplit=1)[0]
            if made and name.endswith("Pipeline"):
                seen += 1
                if made != {kind_of(name).output}:
                    wrong[name] = made
    assert seen > 50
    assert wrong == {}
