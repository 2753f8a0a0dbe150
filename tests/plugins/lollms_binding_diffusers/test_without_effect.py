"""What a request or the settings ask for and the drawing does not use is told, with the reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from lollms_binding_diffusers import DiffusersBinding
from lollms_kernel.errors import InvalidRequest, NotSupported
from lollms_kernel.types import Notice

from .conftest import chunks_of, draw, image, order, outputs_of, steps_of

Open = Callable[..., Awaitable[DiffusersBinding]]


def notices_of(chunks: list[Any]) -> list[Notice]:
    return [chunk for chunk in chunks if isinstance(chunk, Notice)]


async def ignored(binding: DiffusersBinding, kind: str, model: str, parameters: dict[str, Any]) -> list[str]:
    """The names that the one notice tells."""
    notices = notices_of(await chunks_of(binding, order(kind=kind, model=model, **parameters)))
    assert [notice.code for notice in notices] == ["parameters_ignored"]
    return list(notices[0].details["names"])


# --- parameters -----------------------------------------------------------------------------------------------------

PICTURE: dict[str, Any] = {
    "num_frames": 3, "fps": 4, "video_format": "gif", "audio_length_in_s": 1, "strength": 0.5,
    "controlnet_scale": 0.5, "controlnet_model": "edges", "lora_scale": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "model", "unused", "used"),
    [
        ("tti", "tiny", {**PICTURE, "eta": 1}, {"guidance_scale": 3, "size": "64x64", "previews": 1}),
        ("tti", "tiny", {"negative_prompt": "ugly"}, {"guidance_scale": 0}),
        ("tti", "tiny", {"partial_images": 2}, {"previews": 1}),
        (
            "ttv",
            "moving",
            {"strength": 0.5, "previews": 1, "duration": 2},
            {"num_frames": 2, "fps": 4, "width": 64},
        ),
        (
            "ttm",
            "sounding",
            {"width": 64, "previews": 1, "num_frames": 3},
            {"duration": 0.05, "negative_prompt": "noise"},
        ),
    ],
)
async def test_one_notice_lists_all_that_was_given_and_not_used(
    open_binding: Open, kind: str, model: str, unused: dict[str, Any], used: dict[str, Any]
) -> None:
    assert await ignored(await open_binding(), kind, model, {**unused, **used}) == sorted(unused)


async def test_what_has_an_effect_is_not_told(open_binding: Open) -> None:
    binding = await open_binding(lora_paths=["loras/style.safetensors"])
    media = image(), image("controlnet_image")
    given: dict[str, Any] = {
        "strength": 1, "controlnet_scale": 0.5, "controlnet_model": "edges", "lora_scale": 0.5, "width": 64,
        "negative_prompt": "dog", "scheduler": "DDIM", "previews": 0, "n": 1, "temperature": 1, "max_tokens": 9,
    }  # fmt: skip
    assert notices_of(await chunks_of(binding, order("a cat", *media, kind="i2i", **given))) == []


async def test_a_negative_prompt_without_effect_is_not_in_the_metadata(open_binding: Open) -> None:
    binding = await open_binding()
    [used] = await draw(binding, order(negative_prompt="ugly"))
    [unused] = await draw(binding, order(negative_prompt="ugly", guidance_scale=0))
    assert used.metadata["negative_prompt"] == "ugly"
    assert "negative_prompt" not in unused.metadata


async def test_previews_of_an_answer_that_is_not_streamed_are_told(open_binding: Open) -> None:
    asked = msgspec.structs.replace(order(previews=1), want_progress=False)
    [notice] = notices_of(await chunks_of(await open_binding(), asked))
    assert "previews (the answer is not streamed)" in notice.message


async def test_a_video_cannot_be_led_by_a_control_image(open_binding: Open) -> None:
    with pytest.raises(NotSupported, match="control image"):
        await draw(
            await open_binding(), order("a cat", image("controlnet_image"), kind="ttv", model="moving")
        )


# --- previews -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "wanted", "shown"), [(30, 3, [8, 15, 22]), (4, 1, [2]), (2, 5, [1]), (1, 2, [])]
)
def test_there_are_never_more_previews_than_asked_for(steps: int, wanted: int, shown: list[int]) -> None:
    from lollms_binding_diffusers.previews import is_shown

    assert [step for step in range(1, steps + 1) if is_shown(step, steps, 0, wanted)] == shown


async def test_a_safety_checker_is_not_bypassed_by_previews(open_binding: Open, root: Any) -> None:
    from . import tiny_models as tiny

    tiny.stable_diffusion(root / "models" / "diffusers_models" / "watched", **tiny.strict_safety_checker())
    request = order(model="watched", num_inference_steps=4, previews=1)
    chunks = await chunks_of(await open_binding(), request)
    assert [step for step in steps_of(chunks) if step.preview is not None] == []
    [told] = [notice for notice in notices_of(chunks) if notice.code == "parameters_ignored"]
    assert "previews (the safety checker looks at finished pictures only)" in told.message
    unchecked = await chunks_of(await open_binding(enable_safety_checker=False), request)
    assert any(step.preview is not None for step in steps_of(unchecked))


# --- ends of prompts --------------------------------------------------------------------------------------------------


async def test_words_that_the_model_does_not_read_are_told(open_binding: Open) -> None:
    """The tiny tokenizer reads 14 letters."""
    chunks = await chunks_of(
        await open_binding(), order("abcdefg hijklmn xyz", negative_prompt="opqrstuvwxyzabcd")
    )
    told = {notice.details["text"]: notice for notice in notices_of(chunks)}
    assert {notice.code for notice in told.values()} == {"prompt_truncated"}
    prompt, negative = told["prompt"], told["negative_prompt"]
    assert (prompt.details["tokens"], prompt.details["read"], prompt.details["lost"]) == (17, 14, "xyz")
    assert "17 tokens, of which the model (tokenizer) reads 14" in prompt.message
    assert negative.details["lost"] == "cd"
    assert len(outputs_of(chunks)) == 1


async def test_a_prompt_that_fits_exactly_is_not_told(open_binding: Open) -> None:
    assert notices_of(await chunks_of(await open_binding(), order("abcdefg hijklmn"))) == []


async def test_a_negative_prompt_that_nobody_reads_loses_nothing(open_binding: Open) -> None:
    request = order(negative_prompt="opqrstuvwxyzabcd", guidance_scale=1)
    notices = notices_of(await chunks_of(await open_binding(), request))
    assert [notice.code for notice in notices] == ["parameters_ignored"]


# --- settings ---------------------------------------------------------------------------------------------------------


async def test_settings_without_effect_are_told_once_in_each_answer(open_binding: Open) -> None:
    binding = await open_binding(enable_safety_checker=True, use_compel=True)
    [notice] = notices_of(await chunks_of(binding, order(n=2)))
    assert notice.code == "settings_ignored"
    assert notice.details == {"names": ["enable_safety_checker", "use_compel"]}
    assert "'tiny' has no safety checker" in notice.message


async def test_who_has_not_asked_for_a_safety_checker_is_not_told_of_it(open_binding: Open) -> None:
    assert notices_of(await chunks_of(await open_binding(), order())) == []


# --- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3])
async def test_too_few_steps_for_a_scheduler_are_refused(open_binding: Open, steps: int) -> None:
    binding = await open_binding()
    with pytest.raises(InvalidRequest, match=f"num_inference_steps is {steps}: PNDMScheduler") as refused:
        await draw(binding, order(scheduler="PNDM", num_inference_steps=steps))
    assert "at least 4 steps" in str(refused.value.hint)
    assert await draw(binding, order(scheduler="PNDM", num_inference_steps=4))
