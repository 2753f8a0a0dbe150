"""What is refused before any model sees it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from PIL import Image

from lollms_binding_diffusers import DiffusersBinding
from lollms_binding_diffusers.input_images import read_image, read_inputs
from lollms_binding_diffusers.parameters import read_parameters
from lollms_kernel.contracts import BindingContext
from lollms_kernel.errors import InvalidRequest, LollmsError, PayloadTooLarge, UnsupportedInput
from lollms_kernel.pipeline import check_inputs
from lollms_kernel.testing.binding_contract import make_binding
from lollms_kernel.types import Media

from .conftest import draw, image, order, png

Open = Callable[..., Awaitable[DiffusersBinding]]


def part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes whose pixels would fill gigabytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", body) + part(b"IEND", b"")


def media(data: bytes, mime_type: str | None = "image/png", role: str = "input_image") -> Media:
    return Media("image", role, data, mime_type)


BAD_IMAGES: dict[str, tuple[Media, type[LollmsError], str]] = {
    "no image": (media(b"hello, I am a text"), UnsupportedInput, "no image"),
    "empty header": (media(b"\x89PNG\r\n\x1a\n"), UnsupportedInput, "no image|damaged"),
    "half an image": (media(png((300, 300), (1, 2, 3))[:120]), UnsupportedInput, "damaged|no image"),
    "wrong mime type": (media(png(kind="JPEG"), "image/png"), UnsupportedInput, "image/jpeg"),
    "a mime type that is none of an image": (media(png(), "text/html"), UnsupportedInput, "text/html"),
    "vector graphics": (media(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"), UnsupportedInput, "no"),
    "PostScript, which Pillow would hand to a program": (
        media(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/eps"), UnsupportedInput, "no image",
    ),
    "decompression bomb": (media(bomb(50_000, 50_000)), PayloadTooLarge, "pixels"),
    "just too large": (media(bomb(5_000, 4_000)), PayloadTooLarge, "5000×4000"),
    "too small": (media(png((4, 64))), InvalidRequest, "4×64"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_IMAGES)
async def test_bad_images_never_reach_a_model(open_binding: Open, name: str) -> None:
    item, error, text = BAD_IMAGES[name]
    binding = await open_binding()
    with pytest.raises(error, match=text) as refused:
        await draw(binding, order("a cat", item, kind="i2i"))
    assert refused.value.hint
    assert (await binding.get_model_info("tiny")).details["loaded"] is False


BAD_SETS: dict[str, tuple[list[Media], str]] = {
    "no image to change": ([], "no image to change"),
    "a mask alone": ([image("mask_image")], "no image that it belongs to"),
    "a mask of another size": ([image(), image("mask_image", size=(64, 72))], "64×72.*64×64"),
    "two images": ([image(), image()], "more than one image"),
    "two masks": ([image(), image("mask"), image("mask_image")], "more than one mask"),
    "two control images": ([image("controlnet_image"), image("control_image")], "more than one control"),
}


@pytest.mark.parametrize("name", BAD_SETS)
def test_images_that_do_not_go_together_are_refused(name: str) -> None:
    items, text = BAD_SETS[name]
    with pytest.raises(InvalidRequest, match=text):
        read_inputs(order("a cat", *items, kind="i2i"), 16)


BAD_PARAMETERS: list[tuple[dict[str, Any], str]] = [
    ({"width": 100}, "multiple of 8"),
    ({"width": 4096}, "64 to 2048"),
    ({"height": 8}, "64 to 2048"),
    ({"height": True}, "multiple of 8"),
    ({"size": "huge"}, "WIDTHxHEIGHT"),
    ({"size": "512x513"}, "multiple of 8"),
    ({"size": 512}, "WIDTHxHEIGHT"),
    ({"num_inference_steps": 0}, "1 to 150"),
    ({"num_inference_steps": 100_000}, "1 to 150"),
    ({"steps": 2.5}, "integer"),
    ({"guidance_scale": -1}, "0 to 100"),
    ({"guidance_scale": "high"}, "a number"),
    ({"strength": 1.5}, "0 to 1"),
    ({"controlnet_scale": 3}, "0 to 2"),
    ({"n": 99}, "1 to 8"),
    ({"seed": 2**63}, "integer from"),
    ({"scheduler": "Magic"}, "one of DPMSolverMultistepScheduler"),
    ({"scheduler": ["DDIM"]}, "one of"),
    ({"negative_prompt": 3}, "a text"),
    ({"negative_prompt": "x" * 30_000}, "20000 characters"),
    ({"video_format": "mp4"}, "webp, gif"),
    ({"num_frames": 100_000}, "1 to 256"),
]


@pytest.mark.parametrize(("wrong", "cure"), BAD_PARAMETERS, ids=lambda value: str(value)[:40])
def test_wrong_parameters_are_refused_with_name_and_cure(wrong: dict[str, Any], cure: str) -> None:
    settings = make_settings()
    with pytest.raises(InvalidRequest, match=rf"parameters\.{next(iter(wrong))}") as refused:
        read_parameters(wrong, "a cat", settings)
    assert cure in str(refused.value.hint)


async def test_an_unknown_scheduler_never_loads_a_model(open_binding: Open) -> None:
    binding = await open_binding()
    with pytest.raises(InvalidRequest, match="Magic"):
        await draw(binding, order(scheduler="Magic"))
    assert (await binding.get_model_info("tiny")).details["loaded"] is False


@pytest.mark.parametrize("prompt", ["", "  \n", "x" * 30_000])
def test_prompts_that_are_empty_or_endless_are_refused(prompt: str) -> None:
    with pytest.raises(InvalidRequest):
        read_parameters({}, prompt, make_settings())


@pytest.mark.parametrize(
    "both",
    [
        {"size": "64x64", "width": 128},
        {"size": "64x64", "image_size": "64x128"},
        {"num_inference_steps": 2, "steps": 3},
        {"guidance_scale": 2, "cfg_scale": 3},
        {"n": 1, "num_images": 2},
        {"audio_length_in_s": 1, "duration": 2},
    ],
    ids=str,
)
def test_two_names_of_one_thing_must_say_the_same(both: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="both say") as refused:
        read_parameters(both, "a cat", make_settings())
    assert all(f"parameters.{name}" in str(refused.value) for name in both)
    assert refused.value.hint == "Give one of them."


def test_the_second_name_of_a_thing_is_checked_too() -> None:
    with pytest.raises(InvalidRequest, match=r"parameters\.steps"):
        read_parameters({"num_inference_steps": 2, "steps": True}, "a cat", make_settings())
    wanted = read_parameters(
        {"size": "64x72", "width": 64, "steps": 2.0, "num_inference_steps": 2}, "x", make_settings()
    )
    assert (wanted.width, wanted.height, wanted.steps) == (64, 72, 2)


def test_what_other_clients_call_things_is_understood() -> None:
    wanted = read_parameters(
        {
            "steps": 7.0,
            "cfg_scale": 2,
            "num_images": 3,
            "scheduler": "EulerDiscrete",
            "size": "auto",
            "seed": -1,
        },
        "a cat",
        make_settings(),
    )
    assert (wanted.steps, wanted.guidance_scale, wanted.count) == (7, 2.0, 3)
    assert (wanted.scheduler, wanted.width) == ("EulerDiscreteScheduler", None)
    assert wanted.seed >= 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_common_formats_are_read(kind: str) -> None:
    item = Media("image", "input_image", png(kind=kind), "application/octet-stream")
    assert read_image(item, 16).size == (64, 64)


def test_a_photo_is_turned_as_its_camera_says() -> None:
    target = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (80, 40)).save(target, "JPEG", exif=exif)
    assert read_image(media(target.getvalue(), "image/jpg"), 16).size == (40, 80)


def test_roles_of_other_bindings_are_known() -> None:
    found = read_inputs(order("x", image("image"), image("mask"), image("control_image"), kind="i2i"), 16)
    assert found.initial.mode == "RGB"
    assert found.mask.mode == "L"
    assert found.control is not None


def see_through(alpha: list[int], colour: tuple[int, int, int] = (0, 0, 0), **fields: Any) -> Media:
    """An image of 64×64 in one colour, in as many columns as `alpha` has values."""
    picture = Image.new("RGBA", (64, 64), (*colour, 255))
    columns = Image.new("L", (len(alpha), 1))
    columns.putdata(alpha)
    picture.putalpha(columns.resize((64, 64), Image.Resampling.NEAREST))
    target = io.BytesIO()
    picture.save(target, "PNG")
    return Media("image", fields.pop("role", "mask_image"), target.getvalue(), "image/png", fields)


@pytest.mark.parametrize(
    ("mask", "left", "right"),
    [
        (see_through([0, 255]), 255, 0),
        (see_through([0, 255], (255, 255, 255)), 255, 0),
        (see_through([55, 255]), 200, 0),
        (see_through([255, 255], (255, 255, 255)), 255, 255),
        (see_through([255, 255]), 0, 0),
    ],
)
def test_what_is_transparent_in_a_mask_is_painted_anew(mask: Media, left: int, right: int) -> None:
    found = read_inputs(order("x", image(), mask, kind="i2i"), 16).mask
    assert (found.getpixel((0, 0)), found.getpixel((63, 63))) == (left, right)


def test_what_is_transparent_in_the_image_is_a_mask_where_its_sender_says_so() -> None:
    given = see_through([0, 255], role="input_image", alpha_is_mask=True)
    found = read_inputs(order("x", given, kind="i2i"), 16)
    assert (found.initial.mode, found.mask.getpixel((0, 0)), found.mask.getpixel((63, 0))) == ("RGB", 255, 0)
    both = read_inputs(order("x", given, see_through([255, 0]), kind="i2i"), 16)
    assert both.mask.getpixel((0, 0)) == 0
    plain = see_through([0, 255], role="input_image")
    assert read_inputs(order("x", plain, kind="i2i"), 16).mask is None


async def test_a_misspelt_role_is_refused(open_binding: Open) -> None:
    binding = await open_binding()
    request = order("x", image("controlnt_image"))
    with pytest.raises(UnsupportedInput, match="controlnt_image") as refused:
        check_inputs(request, binding, await binding.get_model_info("tiny"))
    assert refused.value.hint == "It takes the roles: input_image, mask_image, controlnet_image."
    for role in ("input_image", "image", "mask", "mask_image", "control_image", "controlnet_image"):
        check_inputs(order("x", image(role)), binding, await binding.get_model_info("tiny"))


def make_settings(**settings: Any) -> Any:
    from pathlib import Path

    context = BindingContext(models_folder=Path("m"), root=Path())
    return make_binding(DiffusersBinding, settings, context).settings
