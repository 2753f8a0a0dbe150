"""What comes out: pictures, videos and sounds of real pipelines, their metadata, and what makes them differ."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from lollms_binding_diffusers import DiffusersBinding
from lollms_kernel.errors import InvalidRequest, ModelLoadFailed, NotSupported
from lollms_kernel.types import Finished, Info, Notice, Output

from .conftest import chunks_of, draw, image, order, outputs_of, pixels, png, steps_of

Open = Callable[..., Awaitable[DiffusersBinding]]


def differs(one: Any, other: Any) -> int:
    return int(abs(one - other).max())


# --- text to image ----------------------------------------------------------------------------------------------


async def test_a_picture_has_its_parameters_in_the_metadata_and_in_the_file(open_binding: Open) -> None:
    binding = await open_binding()
    [output] = await draw(
        binding, order("ein Kätzchen", negative_prompt="dog", guidance_scale=3, scheduler="DDIM")
    )
    assert (output.type, output.mime_type) == ("image", "image/png")
    facts = output.metadata
    assert facts["prompt_used"] == "ein Kätzchen"
    assert (facts["width"], facts["height"], facts["size"]) == (64, 64, "64x64")
    assert (facts["model"], facts["steps"], facts["seed"]) == ("tiny", 2, 1)
    assert (facts["guidance_scale"], facts["scheduler"]) == (3.0, "DDIMScheduler")
    assert facts["negative_prompt"] == "dog"
    assert (facts["device"], facts["dtype"], facts["threads"]) == ("cpu", "float32", 1)
    assert facts["generation_timings"]["generate"] > 0
    assert facts["generation_timings"]["load"] > 0
    with Image.open(io.BytesIO(output.data)) as picture:
        assert picture.size == (64, 64)
        assert picture.text["prompt_used"] == "ein Kätzchen"
        assert picture.text["seed"] == "1"
        assert json.loads(picture.text["parameters"])["scheduler"] == "DDIMScheduler"


async def test_a_seed_always_gives_the_same_picture_and_another_one_another(open_binding: Open) -> None:
    binding = await open_binding()
    [first], [again], [other] = [await draw(binding, order(seed=seed)) for seed in (5, 5, 6)]
    assert differs(pixels(first), pixels(again)) == 0
    assert differs(pixels(first), pixels(other)) > 8


async def test_without_a_seed_one_is_chosen_and_told_and_repeats_the_picture(open_binding: Open) -> None:
    binding = await open_binding()
    [first], [second] = [await draw(binding, order(seed=-1)) for _ in range(2)]
    assert first.metadata["seed"] != second.metadata["seed"]
    [again] = await draw(binding, order(seed=first.metadata["seed"]))
    assert differs(pixels(first), pixels(again)) == 0


async def test_several_pictures_have_the_seeds_that_follow(open_binding: Open) -> None:
    binding = await open_binding(max_batch=2)
    outputs = await draw(binding, order(seed=10, n=3))  # a batch of two and one of one
    assert [output.metadata["seed"] for output in outputs] == [10, 11, 12]
    for output in outputs:
        [alone] = await draw(binding, order(seed=output.metadata["seed"]))
        assert differs(pixels(output), pixels(alone)) <= 2


async def test_requests_at_the_same_time_are_drawn_at_once_and_come_out_as_if_alone(
    open_binding: Open,
) -> None:
    binding = await open_binding(batch_window=1.0)
    wanted = [order(f"cat {seed}", seed=seed, negative_prompt="dog") for seed in range(4)]
    together = await asyncio.gather(*(draw(binding, request) for request in wanted))
    assert [output.metadata.get("batched_with") for [output] in together] == [3, 3, 3, 3]
    for request, [output] in zip(wanted, together, strict=True):
        [alone] = await draw(binding, request)
        assert "batched_with" not in alone.metadata
        assert differs(pixels(output), pixels(alone)) <= 2


async def test_requests_that_differ_in_more_than_words_and_seed_are_not_put_together(
    open_binding: Open,
) -> None:
    binding = await open_binding(batch_window=1.0)
    wanted = [order(), order(width=128), order(num_inference_steps=3), order(scheduler="DDIM")]
    for [output] in await asyncio.gather(*(draw(binding, request) for request in wanted)):
        assert "batched_with" not in output.metadata


@pytest.mark.parametrize(
    ("wanted", "size"),
    [
        ({"width": 128, "height": 72}, (128, 72)),
        ({"size": "96x64"}, (96, 64)),
        ({"image_size": "64x128"}, (64, 128)),
        ({"height": 128}, (64, 128)),
        ({}, (64, 64)),
    ],
)
async def test_sizes(open_binding: Open, wanted: dict[str, Any], size: tuple[int, int]) -> None:
    [output] = await draw(await open_binding(), order(**wanted))
    assert Image.open(io.BytesIO(output.data)).size == size
    assert output.metadata["size"] == f"{size[0]}x{size[1]}"


async def test_words_guidance_negative_prompt_and_scheduler_all_matter(open_binding: Open) -> None:
    binding = await open_binding()
    base: dict[str, Any] = {"num_inference_steps": 6}
    requests = [
        order(**base),
        order("a red house", **base),
        order(guidance_scale=0, **base),
        order(negative_prompt="ugly", **base),
        order(scheduler="EulerAncestralDiscreteScheduler", **base),
    ]
    plain, *others = [pixels((await draw(binding, request))[0]) for request in requests]
    assert all(differs(plain, other) > 0 for other in others)


async def test_a_scheduler_that_the_model_cannot_use_is_refused_with_those_that_it_can(
    open_binding: Open,
) -> None:
    with pytest.raises(InvalidRequest, match="FlowMatchEuler") as refused:
        await draw(await open_binding(), order(scheduler="FlowMatchEulerDiscreteScheduler"))
    assert "EulerDiscreteScheduler" in str(refused.value.hint)


async def test_progress_comes_with_each_step_and_previews_where_they_are_asked_for(
    open_binding: Open,
) -> None:
    chunks = await chunks_of(
        await open_binding(), order(num_inference_steps=8, previews=3, width=512, height=512)
    )
    infos = [chunk.content for chunk in chunks if isinstance(chunk, Info)]
    assert infos == [{"status": "starting_image_generation", "model": "tiny", "prompt": "a cat", "seed": 1}]
    steps = steps_of(chunks)
    assert [step.step for step in steps] == sorted(step.step for step in steps)
    assert (steps[-1].step, steps[-1].total) == (8, 8)
    previews = [step for step in steps if step.preview is not None]
    assert previews
    for step in previews:
        assert step.mime_type == "image/jpeg"
        assert step.preview is not None
        assert max(Image.open(io.BytesIO(step.preview)).size) <= 256
        assert len(step.preview) < 40_000
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].timings.generate is not None


async def test_who_wants_no_progress_gets_none(open_binding: Open) -> None:
    asked = msgspec.structs.replace(order(previews=1), want_progress=False)
    chunks = await chunks_of(await open_binding(), asked)
    assert [type(chunk) for chunk in chunks] == [Notice, Output, Finished]


async def test_what_has_no_effect_is_told(open_binding: Open) -> None:
    chunks = await chunks_of(await open_binding(), order(temperature=0.7, sampler_eta=1, style="vivid"))
    [notice] = [chunk for chunk in chunks if isinstance(chunk, Notice)]
    assert notice.details == {"names": ["sampler_eta", "style"]}


# --- images as input ------------------------------------------------------------------------------------------------


async def test_an_image_is_changed_by_strength_and_keeps_its_size(open_binding: Open) -> None:
    binding = await open_binding(default_strength=0.5)
    given = image(size=(96, 72))
    chunks = await chunks_of(binding, order("a cat", given, kind="i2i", num_inference_steps=4))
    [output] = outputs_of(chunks)
    assert Image.open(io.BytesIO(output.data)).size == (96, 72)
    assert output.metadata["strength"] == 0.5
    assert steps_of(chunks)[-1].total == 2  # half of the four steps
    results = [
        pixels(
            (
                await draw(
                    binding, order("a cat", given, kind="i2i", strength=strength, num_inference_steps=10)
                )
            )[0]
        )
        for strength in (0.1, 1.0)
    ]
    assert differs(*results) > 0


async def test_an_image_of_another_size_is_resized_and_that_is_told(open_binding: Open) -> None:
    chunks = await chunks_of(await open_binding(), order("a cat", image(size=(99, 131)), kind="i2i"))
    notices = [chunk.code for chunk in chunks if isinstance(chunk, Notice)]
    assert notices == ["input_resized"]
    [output] = outputs_of(chunks)
    assert output.metadata["size"] == "96x128"


@pytest.mark.parametrize(
    ("wanted", "size"),
    [({"width": 128}, (128, 96)), ({"height": 144}, (192, 144)), ({"width": 64, "height": 64}, (64, 64))],
)
async def test_one_edge_is_enough_to_keep_the_shape_of_an_image(
    open_binding: Open, wanted: dict[str, Any], size: tuple[int, int]
) -> None:
    [output] = await draw(await open_binding(), order("a cat", image(size=(96, 72)), kind="i2i", **wanted))
    assert Image.open(io.BytesIO(output.data)).size == size


async def test_an_edge_that_follows_must_not_be_too_large(open_binding: Open) -> None:
    given = image(size=(64, 192))
    with pytest.raises(InvalidRequest, match="128×384") as refused:
        await draw(await open_binding(max_size=256), order("a cat", given, kind="i2i", width=128))
    assert "256" in str(refused.value.hint)


@pytest.mark.parametrize("steps", [3, 7, 30, 150])
async def test_the_least_strength_that_is_told_is_enough(open_binding: Open, steps: int) -> None:
    binding = await open_binding()
    wanted: dict[str, Any] = {"kind": "i2i", "num_inference_steps": steps}
    with pytest.raises(InvalidRequest, match="strength") as refused:
        await draw(binding, order("a cat", image(), strength=0.001, **wanted))
    told = float(str(refused.value.hint).rstrip(".").rsplit(" ", 1)[-1])
    [output] = await draw(binding, order("a cat", image(), strength=told, **wanted))
    assert output.metadata["strength"] == told


async def test_a_mask_says_what_is_painted_anew(open_binding: Open) -> None:
    binding = await open_binding()
    given = image(colour=(10, 200, 30))

    async def masked(colour: int) -> Any:
        mask = image("mask_image", colour=(colour,) * 3)
        return pixels((await draw(binding, order("a cat", given, mask, kind="i2i", strength=1.0)))[0])

    nothing, everything = await masked(0), await masked(255)
    assert differs(nothing, everything) > 8
    assert differs(nothing, await masked(0)) == 0


async def test_a_control_image_leads_the_drawing(open_binding: Open) -> None:
    binding = await open_binding()
    black, white = (image("controlnet_image", colour=(shade,) * 3) for shade in (0, 255))
    [plain] = await draw(binding, order())
    [first] = await draw(binding, order("a cat", black))
    [second] = await draw(binding, order("a cat", white))
    assert first.metadata["controlnet_model"] == "edges"
    assert first.metadata["controlnet_scale"] == 0.75
    assert differs(pixels(plain), pixels(first)) > 0
    assert differs(pixels(first), pixels(second)) > 0
    [off] = await draw(binding, order("a cat", white, controlnet_scale=0))
    assert differs(pixels(off), pixels(plain)) <= 1


async def test_a_control_image_goes_with_an_image_and_a_mask(open_binding: Open) -> None:
    binding = await open_binding()
    control = image("controlnet_image", size=(80, 80))
    [changed] = await draw(binding, order("a cat", image(), control, kind="i2i"))
    [painted] = await draw(binding, order("a cat", image(), image("mask_image"), control, kind="i2i"))
    assert differs(pixels(changed), pixels(painted)) > 0


async def test_unknown_controlnets_are_refused(open_binding: Open) -> None:
    control = image("controlnet_image")
    with pytest.raises(InvalidRequest, match="controlnet_model"):
        await draw(await open_binding(), order("a cat", control, controlnet_model="../edges"))
    with pytest.raises(InvalidRequest, match="no ControlNet"):
        await draw(await open_binding(controlnet_models_folder=None), order("a cat", control))


# --- what the settings put onto a model -----------------------------------------------------------------------------


async def test_loras_change_the_picture_by_their_scale(open_binding: Open) -> None:
    [plain] = await draw(await open_binding(), order())
    binding = await open_binding(lora_paths=["loras/style.safetensors"], lora_scales=[2.0])
    [styled] = await draw(binding, order())
    [off] = await draw(binding, order(lora_scale=0))
    assert differs(pixels(plain), pixels(styled)) > 0
    assert differs(pixels(plain), pixels(off)) <= 1
    assert (await binding.get_model_info("tiny")).details["loras"] == ["style.safetensors"]


async def test_another_vae_can_be_used(open_binding: Open) -> None:
    [plain] = await draw(await open_binding(), order())
    [other] = await draw(await open_binding(vae_path="vaes/bright"), order())
    assert differs(pixels(plain), pixels(other)) > 0


@pytest.mark.parametrize(
    "settings",
    [{"lora_paths": ["loras/gone.safetensors"]}, {"lora_paths": ["x.bin"]}, {"vae_path": "nowhere"}],
)
async def test_settings_that_name_what_is_not_there_are_told(
    open_binding: Open, settings: dict[str, Any]
) -> None:
    with pytest.raises(ModelLoadFailed, match=r"lora_paths|vae_path"):
        await draw(await open_binding(**settings), order())


async def test_the_safety_checker_hides_pictures_and_can_be_left_out(open_binding: Open, root: Path) -> None:
    from . import tiny_models as tiny

    folder = root / "models" / "diffusers_models" / "strict"
    tiny.stable_diffusion(folder, **tiny.strict_safety_checker())
    chunks = await chunks_of(await open_binding(), order(model="strict"))
    assert [chunk.code for chunk in chunks if isinstance(chunk, Notice)] == ["unsafe_images_hidden"]
    [output] = outputs_of(chunks)
    assert output.metadata["hidden_by_safety_checker"] is True
    assert pixels(output).max() == 0
    [shown] = await draw(await open_binding(enable_safety_checker=False), order(model="strict"))
    assert pixels(shown).max() > 0


async def test_bfloat16_can_be_used_on_a_cpu(open_binding: Open) -> None:
    [output] = await draw(await open_binding(use_bf16=True), order())
    assert output.metadata["dtype"] == "bfloat16"
    assert pixels(output).std() > 0


# --- videos and sounds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["webp", "gif"])
async def test_a_video_pipeline_makes_videos(open_binding: Open, kind: str) -> None:
    binding = await open_binding()
    request = order(kind="ttv", model="moving", num_frames=4, fps=10, video_format=kind)
    chunks = await chunks_of(binding, request)
    [output] = outputs_of(chunks)
    assert (output.type, output.mime_type) == ("video", f"image/{kind}")
    assert (output.metadata["num_frames"], output.metadata["fps"]) == (4, 10)
    with Image.open(io.BytesIO(output.data)) as film:
        assert (film.n_frames, film.size) == (4, (64, 64))
    assert steps_of(chunks)[-1].step == 2


@pytest.mark.parametrize("kind", ["ttm", "tts"])
async def test_a_sound_pipeline_makes_sounds(open_binding: Open, kind: str) -> None:
    binding = await open_binding()
    chunks = await chunks_of(binding, order(kind=kind, model="sounding", audio_length_in_s=0.05))
    [output] = outputs_of(chunks)
    assert (output.type, output.mime_type) == ("audio", "audio/wav")
    with wave.open(io.BytesIO(output.data)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16_000, 1, 2)
        assert sound.getnframes() == 800
    assert steps_of(chunks)[-1].step == 2


async def test_models_say_what_they_make(open_binding: Open) -> None:
    models = {info.name: info for info in await (await open_binding()).list_models()}
    assert {name: info.model_type for name, info in models.items() if name in ("tiny", "moving", "sounding")} == {
        "tiny": "tti", "moving": "ttv", "sounding": "ttm",
    }  # fmt: skip
    assert models["tiny"].input_modalities == ("text", "image")
    assert models["moving"].output_modalities == ("video",)


async def test_a_pipeline_that_cannot_do_a_task_says_so(open_binding: Open, root: Path) -> None:
    from diffusers import DiffusionPipeline

    from lollms_binding_diffusers.tasks import TaskPipelines

    base = DiffusionPipeline.from_pretrained(root / "models" / "diffusers_models" / "moving")
    tasks = TaskPipelines(base, (await open_binding()).settings, root)
    assert tasks.get("text2image") is base
    with pytest.raises(NotSupported, match=r"AnimateDiffPipeline.*image2image"):
        tasks.get("image2image")


def test_samples_of_any_shape_become_a_wav() -> None:
    from lollms_binding_diffusers.encoding import to_wav

    stereo = np.array([[0.0, 2.0, np.nan], [-2.0, 0.5, 0.0]])
    with wave.open(io.BytesIO(to_wav(stereo, 44_100))) as sound:
        assert sound.getnchannels() == 2
        samples = np.frombuffer(sound.readframes(3), "<i2").reshape(3, 2)
    assert samples.tolist() == [[0, -32767], [32767, 16384], [0, 0]]


def test_png_texts_hold_any_language_and_no_zeros() -> None:
    from lollms_binding_diffusers.encoding import to_png

    with Image.open(io.BytesIO(png())) as plain:
        data = to_png(plain, {"prompt_used": "猫\0 cat", "seed": 3})
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.text["prompt_used"] == "猫 cat"
