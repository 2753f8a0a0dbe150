"""Images from Imagen's predict and from models that answer with images."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lollms_binding_gemini import GeminiImageBinding
from lollms_binding_gemini.image_parameters import read_image_wishes
from lollms_binding_gemini.settings import GeminiImageSettings
from lollms_kernel.dummy import small_png
from lollms_kernel.errors import GenerationFailed, InvalidRequest, LollmsError, NotSupported, Unavailable
from lollms_kernel.testing.fakes import Fault, garbage, silence
from lollms_kernel.testing.fakes.gemini import FakeGemini, refused
from lollms_kernel.testing.fakes.gemini_answers import GeminiAnswer, camel
from lollms_kernel.types import Chunk, Finished, Media, Message, ModelInfo, Notice, Output, Progress

Ask = Callable[..., Awaitable[list[Chunk]]]
Opened = Callable[..., Awaitable[Any]]
IMAGEN, FLASH = "imagen-3.0-generate-002", "gemini-2.5-flash-image"
PNG = small_png(1)


@pytest.fixture
async def painter(opened: Opened) -> GeminiImageBinding:
    """An open image binding with default settings."""
    binding: GeminiImageBinding = await opened(GeminiImageBinding)
    return binding


def images(chunks: list[Chunk]) -> list[Output]:
    return [chunk for chunk in chunks if isinstance(chunk, Output)]


def codes(chunks: list[Chunk]) -> list[str]:
    return [chunk.code for chunk in chunks if isinstance(chunk, Notice)]


def body(fake: FakeGemini, path: str) -> dict[str, Any]:
    found: dict[str, Any] = camel(fake.requests_to(path)[-1].json)
    return found


# --- Imagen -------------------------------------------------------------------------------------------------------


async def test_imagen_makes_as_many_as_asked(painter: GeminiImageBinding, ask: Ask, fake: FakeGemini) -> None:
    chunks = await ask(
        painter, "a cat", generation_type="tti", model=IMAGEN, parameters={"n": 3, "aspect_ratio": "16:9"}
    )

    assert body(fake, ":predict") == {
        "instances": [{"prompt": "a cat"}],
        "parameters": {
            "sampleCount": 3,
            "aspectRatio": "16:9",
            "personGeneration": "allow_adult",
            "includeRaiReason": True,
        },
    }
    assert [image.data for image in images(chunks)] == [small_png(number) for number in range(3)]
    first = images(chunks)[0]
    assert (first.type, first.mime_type) == ("image", "image/png")
    assert first.metadata == {"prompt_used": "a cat", "model": IMAGEN, "aspect_ratio": "16:9"}
    assert chunks[-1] == Finished(metadata={"model": IMAGEN})


async def test_the_settings_hold_where_a_request_says_nothing(
    opened: Opened, ask: Ask, fake: FakeGemini
) -> None:
    painter = await opened(
        GeminiImageBinding,
        default_number_of_images=2,
        default_aspect_ratio="3:4",
        default_person_generation="DONT_ALLOW",
    )
    await ask(painter, generation_type="tti", model=IMAGEN)

    sent = body(fake, ":predict")["parameters"]
    assert (sent["sampleCount"], sent["aspectRatio"], sent["personGeneration"]) == (2, "3:4", "dont_allow")


async def test_images_that_are_held_back_are_counted(
    painter: GeminiImageBinding, ask: Ask, fake: FakeGemini
) -> None:
    fake.answer = lambda _: GeminiAnswer(harm="HARM_CATEGORY_HARASSMENT", images=1)
    chunks = await ask(painter, generation_type="tti", model=IMAGEN, parameters={"n": 3})

    assert len(images(chunks)) == 1
    assert codes(chunks) == ["images_filtered"]


@pytest.mark.parametrize("answer", [GeminiAnswer(harm="X", images=0), GeminiAnswer(blocked="SAFETY")])
async def test_imagen_s_refusal_is_an_error(
    painter: GeminiImageBinding, ask: Ask, fake: FakeGemini, answer: GeminiAnswer
) -> None:
    fake.answer = lambda _: answer

    with pytest.raises(InvalidRequest, match="safety"):
        await ask(painter, generation_type="tti", model=IMAGEN)


@pytest.mark.parametrize(
    "answer",
    [b"[]", b"{", b'{"predictions": [{"bytesBase64Encoded": "no base64!"}]}', b'{"predictions": [5]}'],
)
async def test_an_answer_of_imagen_s_that_is_none(
    painter: GeminiImageBinding, ask: Ask, fake: FakeGemini, answer: bytes
) -> None:
    fake.faults.append(garbage(0, answer, ":predict"))

    with pytest.raises(GenerationFailed, match="cannot be read"):
        await ask(painter, generation_type="tti", model=IMAGEN)


async def test_imagen_needs_words(painter: GeminiImageBinding, ask: Ask) -> None:
    with pytest.raises(InvalidRequest, match="no picture described"):
        await ask(painter, "  ", generation_type="tti", model=IMAGEN)


# --- models that answer with images -------------------------------------------------------------------------------


async def test_a_model_that_answers_with_images_is_asked_once_for_each(
    painter: GeminiImageBinding, ask: Ask, fake: FakeGemini
) -> None:
    fake.answer = lambda _: GeminiAnswer(text="Here it is.")
    chunks = await ask(
        painter, "a cat", generation_type="tti", model=FLASH, parameters={"number_of_images": 2}
    )

    config = body(fake, ":stream")["generationConfig"]
    assert config == {"responseModalities": ["TEXT", "IMAGE"], "imageConfig": {"aspectRatio": "1:1"}}
    assert len(fake.requests_to(":stream")) == 2
    assert [image.data for image in images(chunks)] == [small_png(0)] * 2
    assert images(chunks)[0].metadata["text"] == "Here it is."
    assert [chunk for chunk in chunks if isinstance(chunk, Progress)] == [Progress(1, 2), Progress(2, 2)]
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 4


async def test_an_image_is_changed_by_words(painter: GeminiImageBinding, ask: Ask, fake: FakeGemini) -> None:
    given = Media("image", "input_image", PNG, "image/png")
    chunks = await ask(
        painter, generation_type="i2i", model=FLASH, messages=(Message("user", "make it blue", (given,)),)
    )

    medium, words = body(fake, ":stream")["contents"][0]["parts"]
    assert base64.urlsafe_b64decode(medium["inlineData"]["data"]) == PNG
    assert words == {"text": "make it blue"}
    assert len(images(chunks)) == 1


async def test_the_system_text_is_not_sent_and_the_answer_says_so(
    painter: GeminiImageBinding, ask: Ask, fake: FakeGemini
) -> None:
    chunks = await ask(painter, generation_type="tti", model=FLASH, system="You are a pirate.")

    assert "systemInstruction" not in body(fake, ":stream")
    assert codes(chunks) == ["system_ignored"]


async def test_an_answer_without_an_image_is_an_error(
    painter: GeminiImageBinding, ask: Ask, fake: FakeGemini
) -> None:
    fake.answer = lambda _: GeminiAnswer(text="I would rather not.", images=0)

    with pytest.raises(GenerationFailed, match="without an image") as raised:
        await ask(painter, generation_type="tti", model=FLASH)
    assert "rather" not in raised.value.detail


@pytest.mark.parametrize("text", ["", "It begins"])
async def test_an_image_that_is_held_back_is_an_error(
    painter: GeminiImageBinding, ask: Ask, fake: FakeGemini, text: str
) -> None:
    fake.answer = lambda _: GeminiAnswer(text=text, finish="IMAGE_SAFETY")

    with pytest.raises(InvalidRequest, match="safety"):
        await ask(painter, generation_type="tti", model=FLASH)


# --- both ---------------------------------------------------------------------------------------------------------


def test_masks_and_control_images_are_not_for_these_models(painter: GeminiImageBinding) -> None:
    assert painter.supports_role("image", "input_image")
    assert not painter.supports_role("image", "mask_image")
    assert not painter.supports_role("image", "controlnet_image")


async def test_only_images_are_generated_here(painter: GeminiImageBinding, ask: Ask) -> None:
    with pytest.raises(NotSupported, match="ttt"):
        await ask(painter, generation_type="ttt", model=FLASH)


@pytest.mark.parametrize("model", [IMAGEN, FLASH])
async def test_refusals_are_clear(opened: Opened, ask: Ask, fake: FakeGemini, model: str) -> None:
    painter = await opened(GeminiImageBinding, max_retries=0, first_token_timeout=0.5)
    asked: dict[str, Any] = {"generation_type": "tti", "model": model}

    faults: list[tuple[Fault, type[LollmsError], str]] = [
        (refused(429, "slow down", model, retry_delay="7s"), Unavailable, "no more requests"),
        (refused(503, "overloaded", model), Unavailable, "503"),
        (silence(model), Unavailable, "did not"),
    ]
    for fault, kind, message in faults:
        fake.faults.append(fault)
        with pytest.raises(kind, match=message):
            await ask(painter, **asked)


# --- parameters ---------------------------------------------------------------------------------------------------


SETTINGS = GeminiImageSettings(type="gemini_image_binding", binding_instance_name="x")


@pytest.mark.parametrize(
    ("given", "model", "ratio", "said"),
    [
        ({}, IMAGEN, "1:1", []),
        ({"size": "1024x1792"}, IMAGEN, "9:16", ["size_as_aspect_ratio"]),
        ({"width": 1024, "height": 768}, IMAGEN, "4:3", ["size_as_aspect_ratio"]),
        ({"width": 512}, FLASH, "1:1", ["size_as_aspect_ratio"]),
        ({"width": 1500, "height": 1000}, FLASH, "3:2", ["size_as_aspect_ratio"]),
        ({"aspect_ratio": "21:9"}, FLASH, "21:9", []),
        ({"aspect_ratio": "3:4"}, "gemini-2.0-flash-exp-image-generation", None, ["image_size_ignored"]),
        ({"person_generation": "allow_all"}, FLASH, "1:1", ["person_generation_ignored"]),
        ({"num_inference_steps": 30, "max_tokens": 1024}, IMAGEN, "1:1", ["parameters_ignored"]),
    ],
)
def test_sizes_and_what_is_said_about_them(
    given: dict[str, Any], model: str, ratio: str | None, said: list[str]
) -> None:
    wishes = read_image_wishes(given, ModelInfo(name=model), SETTINGS)

    assert wishes.aspect_ratio == ratio
    assert [notice.code for notice in wishes.notices] == said


def test_more_pixels() -> None:
    wishes = read_image_wishes({"image_size": "2k"}, ModelInfo(name=IMAGEN), SETTINGS)

    assert wishes.predict_body("x")["parameters"]["sampleImageSize"] == "2K"
    assert wishes.image_config == {"aspect_ratio": "1:1", "image_size": "2K"}


@pytest.mark.parametrize(
    "given",
    [
        {"n": 0},
        {"n": 5},
        {"number_of_images": "two"},
        {"number_of_images": True},
        {"aspect_ratio": "21:9"},
        {"size": "large"},
        {"width": -1},
        {"image_size": "8K"},
        {"person_generation": "everybody"},
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(InvalidRequest, match=f"parameters.{name}"):
        read_image_wishes(given, ModelInfo(name=IMAGEN), SETTINGS)
