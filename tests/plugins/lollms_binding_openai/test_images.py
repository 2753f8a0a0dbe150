"""Images from text and from images; sizes, qualities, styles and numbers by family of models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lollms_binding_openai import DalleBinding
from lollms_binding_openai.image_parameters import image_body
from lollms_binding_openai.settings import DalleSettings
from lollms_kernel.dummy import small_png
from lollms_kernel.errors import GenerationFailed, InvalidRequest, LollmsError, NotSupported
from lollms_kernel.testing.fakes import Fault
from lollms_kernel.testing.fakes.forms import Upload, fields_of
from lollms_kernel.testing.fakes.openai import FakeOpenAI, OpenAIModel
from lollms_kernel.types import Chunk, Finished, Media, Message, Notice, Output, Progress, Usage

Open = Callable[..., Awaitable[Any]]
Ask = Callable[..., Awaitable[list[Chunk]]]

PNG = small_png(0x445566)
GPT = "gpt-image-2.5-flare"
DEFAULTS = DalleSettings(type="dalle_binding", binding_instance_name="d")


def outputs(chunks: list[Chunk]) -> list[Output]:
    return [chunk for chunk in chunks if isinstance(chunk, Output)]


def with_images(*roles: str, text: str = "Make it red.") -> tuple[Message, ...]:
    return (Message("user", text, tuple(Media("image", role, PNG, "image/png") for role in roles)),)


def body(parameters: dict[str, Any], model: str) -> dict[str, Any]:
    return image_body(parameters, model, DEFAULTS)


# --- text to image ------------------------------------------------------------------------------------------


async def test_an_image_comes_as_bytes_with_what_made_it(
    painter: DalleBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    image, last = await ask(painter, "A fox", generation_type="tti", model="dall-e-3")

    assert isinstance(image, Output)
    assert (image.type, image.mime_type) == ("image", "image/png")
    assert image.data.startswith(b"\x89PNG")
    assert image.metadata == {
        "prompt_used": "A fox",
        "model": "dall-e-3",
        "size": "1024x1024",
        "quality": "standard",
        "style": "vivid",
        "revised_prompt": "A fine picture: A fox",
    }
    assert isinstance(last, Finished)
    assert fake.requests_to("/images")[-1].json["response_format"] == "b64_json"


async def test_several_images_come_in_order(painter: DalleBinding, ask: Ask) -> None:
    chunks = await ask(painter, "A fox", generation_type="tti", model=GPT, parameters={"n": 3})

    assert len({output.data for output in outputs(chunks)}) == 3
    assert chunks[-1] == Finished(usage=Usage(2, 272))


async def test_previews_are_progress(painter: DalleBinding, ask: Ask) -> None:
    chunks = await ask(painter, "A fox", generation_type="tti", model=GPT, parameters={"partial_images": 2})

    previews = [chunk for chunk in chunks if isinstance(chunk, Progress)]
    assert [(preview.step, preview.total, preview.mime_type) for preview in previews] == [
        (1, 3, "image/png"),
        (2, 3, "image/png"),
    ]
    assert len(outputs(chunks)) == 1


async def test_without_a_model_the_default_makes_it(painter: DalleBinding) -> None:
    assert (await painter.get_model_info()).name == "dall-e-3"


async def test_where_the_old_default_was_retired_the_first_image_model_makes_it(open_binding: Open) -> None:
    with FakeOpenAI([OpenAIModel(id="gpt-4o"), OpenAIModel(id=GPT, makes="image")]) as fake:
        untouched = await open_binding(DalleBinding, fake)
        assert (await untouched.get_model_info()).name == GPT

        chosen = await open_binding(DalleBinding, fake, default_model="dall-e-2")
        with pytest.raises(LollmsError, match="dall-e-2"):
            await chosen.get_model_info()


async def test_parameters_without_effect_and_the_system_text_are_noticed(
    painter: DalleBinding, ask: Ask
) -> None:
    given = {"seed": 3, "background": "transparent", "context_size": 4096, "max_tokens": 5}

    chunks = await ask(
        painter, "A fox", generation_type="tti", model="dall-e-3", parameters=given, system="Be brief."
    )

    found = {chunk.code: chunk for chunk in chunks if isinstance(chunk, Notice)}
    assert found["parameters_ignored"].details == {"names": ["background", "seed"]}
    assert "system_ignored" in found


@pytest.mark.parametrize("model", ["dall-e-3", GPT])
async def test_a_blocked_prompt_is_said_without_the_service_s_words(
    model: str, painter: DalleBinding, ask: Ask
) -> None:
    with pytest.raises(InvalidRequest, match="safety reasons") as caught:
        await ask(painter, "a forbidden thing", generation_type="tti", model=model)
    assert "rejected" not in caught.value.detail


@pytest.mark.parametrize(
    "answer", [b'{"data": []}', b'{"data": [{"url": "http://x/y"}]}', b'{"data": [{"b64_json": "%"}]}']
)
async def test_an_answer_without_an_image_is_an_error(
    answer: bytes, painter: DalleBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    fake.faults.append(
        Fault(status=200, headers={"content-type": "application/json"}, body=answer, path="/images")
    )

    with pytest.raises(GenerationFailed):
        await ask(painter, "A fox", generation_type="tti", model="dall-e-3")


async def test_nothing_to_draw_is_refused(painter: DalleBinding, ask: Ask) -> None:
    with pytest.raises(InvalidRequest, match="nothing to draw"):
        await ask(painter, " ", generation_type="tti", model=GPT)


async def test_text_is_not_made_here(painter: DalleBinding, ask: Ask) -> None:
    with pytest.raises(NotSupported):
        await ask(painter, model=GPT)


# --- image to image -----------------------------------------------------------------------------------------


async def test_images_and_the_mask_go_as_bytes_under_names_of_ours(
    painter: DalleBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    messages = with_images("input_image", "input_image", "mask_image")

    chunks = await ask(painter, messages=messages, generation_type="i2i", model=GPT)

    fields = fields_of(fake.requests_to("/images/edits")[-1])
    assert fields["image[]"] == Upload("image-1.png", PNG, "image/png")
    assert fields["image[]#1"] == Upload("image-2.png", PNG, "image/png")
    assert fields["mask"] == Upload("mask.png", PNG, "image/png")
    assert fields["prompt"] == "Make it red."
    assert len(outputs(chunks)) == 1


async def test_a_single_image_has_the_name_that_every_service_takes(
    painter: DalleBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    await ask(painter, messages=with_images("input_image"), generation_type="tti", model="dall-e-2")

    assert "image" in fields_of(fake.requests_to("/images/edits")[-1])


@pytest.mark.parametrize(
    "roles", [(), ("mask_image",), ("input_image", "mask", "mask_image"), ("input_image",) * 17]
)
async def test_it_takes_one_to_sixteen_images_and_one_mask(
    roles: tuple[str, ...], painter: DalleBinding, ask: Ask
) -> None:
    with pytest.raises(InvalidRequest, match="images to edit"):
        await ask(painter, messages=with_images(*roles), generation_type="i2i", model=GPT)


async def test_a_model_that_cannot_edit_says_so(painter: DalleBinding, ask: Ask) -> None:
    with pytest.raises(InvalidRequest, match="cannot edit"):
        await ask(painter, messages=with_images("input_image"), generation_type="i2i", model="dall-e-3")
    assert not painter.supports_role("image", "controlnet_image")


# --- parameters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        (
            "dall-e-3",
            {},
            {"size": "1024x1024", "quality": "standard", "style": "vivid", "response_format": "b64_json"},
        ),
        (
            "dall-e-3",
            {"size": "1792x1024", "quality": "hd", "style": "natural"},
            {"size": "1792x1024", "quality": "hd"},
        ),
        ("dall-e-3", {"width": 1024, "height": 1792}, {"size": "1024x1792"}),
        ("dall-e-2", {"image_size": "256x256", "n": 10}, {"size": "256x256", "n": 10}),
        ("gpt-image-1.5", {"size": "auto", "quality": "high"}, {"size": "auto", "quality": "high"}),
        (GPT, {"size": "1536x864", "quality": "max"}, {"size": "1536x864", "quality": "max"}),
        (
            GPT,
            {"output_format": "webp", "output_compression": 80},
            {"output_format": "webp", "output_compression": 80},
        ),
        ("my-model", {"size": "640x480", "quality": "draft"}, {"size": "640x480", "quality": "draft"}),
    ],
)
def test_what_a_model_can_do_is_sent(model: str, given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert expected.items() <= body(given, model).items()


@pytest.mark.parametrize(
    ("model", "absent"),
    [
        ("dall-e-2", {"quality", "style"}),
        (GPT, {"quality", "style", "response_format"}),
        ("my-model", {"quality", "style"}),
    ],
)
def test_defaults_that_do_not_suit_a_model_are_left_out(model: str, absent: set[str]) -> None:
    assert not absent & body({}, model).keys()


@pytest.mark.parametrize(
    ("model", "given", "cure"),
    [
        ("dall-e-3", {"size": "512x512"}, "1792x1024"),
        ("dall-e-3", {"n": 2}, "makes 1 at a time"),
        ("dall-e-3", {"quality": "high"}, "standard, hd"),
        ("dall-e-3", {"style": "wild"}, "vivid, natural"),
        ("dall-e-2", {"n": 11}, "from 1 to 10"),
        ("dall-e-2", {"style": "vivid"}, "leave it out"),
        ("gpt-image-1", {"size": "1536x864"}, "1536x1024"),
        ("gpt-image-2", {"quality": "max"}, "auto, low, medium, high"),
        (GPT, {"size": "1000x1000"}, "multiples of 16"),
        (GPT, {"size": "3840x256"}, "3:1"),
        (GPT, {"size": "4096x4096"}, "3840"),
        (GPT, {"size": "big"}, "WIDTHxHEIGHT"),
        (GPT, {"size": 7}, "WIDTHxHEIGHT"),
        (GPT, {"partial_images": 4}, "from 0 to 3"),
        (GPT, {"output_format": "bmp"}, "png, jpeg, webp"),
    ],
)
def test_what_a_model_cannot_do_is_refused_with_what_it_can(
    model: str, given: dict[str, Any], cure: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(given, model)
    assert cure in str(caught.value.hint)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["dall-e-2", "dall-e-3", GPT, "other"]),
    st.dictionaries(
        st.sampled_from(
            ["size", "quality", "style", "user", "output_format", "partial_images", "extra_body"]
        ),
        st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.lists(st.integers(), max_size=2),
        max_size=3,
    ),
)
def test_whatever_is_sent_is_taken_or_refused_in_our_words(model: str, given: dict[str, Any]) -> None:
    try:
        assert body(given, model)["model"] == model
    except LollmsError as error:
        assert error.hint
