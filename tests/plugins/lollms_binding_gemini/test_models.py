"""Which models are listed, what is known of them, and which stands in for one that is gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lollms_binding_gemini import GeminiBinding, GeminiImageBinding
from lollms_kernel.errors import ModelNotFound, Unavailable
from lollms_kernel.testing.fakes.gemini import FakeGemini, refused
from lollms_kernel.testing.fakes.gemini_models import GeminiModel
from lollms_kernel.types import Chunk, Finished

Ask = Callable[..., Awaitable[list[Chunk]]]
Opened = Callable[..., Awaitable[Any]]


async def names(binding: Any) -> list[str]:
    return [info.name for info in await binding.list_models()]


async def test_each_type_lists_what_it_can_use(opened: Opened) -> None:
    text, image = await names(await opened()), await names(await opened(GeminiImageBinding))

    assert {"gemini-2.5-flash", "gemma-3-27b-it", "gemini-embedding-001"} <= set(text)
    assert image == [
        "gemini-2.0-flash-exp-image-generation",
        "gemini-2.5-flash-image",
        "imagen-3.0-generate-002",
    ]
    assert not {"veo-3.0-generate-001", "aqa", "gemini-2.5-flash-preview-tts"} & {*text, *image}
    assert not set(text) & set(image)


async def test_a_listing_of_many_pages_is_read_to_its_end(opened: Opened, fake: FakeGemini) -> None:
    fake.models = {f"gemini-{number}": GeminiModel(name=f"gemini-{number}") for number in range(2500)}
    binding = await opened()

    assert len(await names(binding)) == 2500


async def test_what_the_service_says_of_a_model(binding: GeminiBinding) -> None:
    info = await binding.get_model_info("gemini-2.5-flash")

    assert (info.context_size, info.max_output_tokens) == (1_048_576, 65_536)
    assert info.input_modalities == ("text", "image", "audio", "video", "document")
    assert (info.family, info.supports_vision, info.supports_audio) == ("gemini", True, True)
    assert info.details["thinking"] is True
    assert info.details["display_name"] == "Gemini 2.5 Flash"


async def test_limits_of_the_instance_where_they_are_not_to_be_detected(opened: Opened) -> None:
    binding = await opened(auto_detect_limits=False, ctx_size=1000)
    info = await binding.get_model_info("gemini-2.5-flash")

    assert (info.context_size, info.max_output_tokens) == (1000, 2048)


async def test_gemma_sees_and_its_smallest_does_not(binding: GeminiBinding) -> None:
    assert (await binding.get_model_info("gemma-3-27b-it")).supports_vision
    assert not (await binding.get_model_info("gemma-3-1b-it")).supports_vision


async def test_models_of_other_kinds_are_described_as_such(binding: GeminiBinding) -> None:
    """So that the kernel says that they do not make text, instead of that they do not exist."""
    assert (await binding.get_model_info("gemini-2.5-flash-preview-tts")).output_modalities == ("audio",)
    assert (await binding.get_model_info("veo-3.0-generate-001")).output_modalities == ()


async def test_the_listing_is_asked_for_once(binding: GeminiBinding, ask: Ask, fake: FakeGemini) -> None:
    fake.received.clear()
    await ask(binding)
    await binding.list_models()
    await binding.get_model_info("gemini-2.0-flash")

    assert len(fake.received) == 1


async def test_a_name_may_have_the_protocol_s_prefix(binding: GeminiBinding, ask: Ask) -> None:
    (*_, finished) = await ask(binding, model="models/gemini-2.0-flash")

    assert isinstance(finished, Finished)
    assert finished.metadata["model"] == "gemini-2.0-flash"


async def test_a_model_that_is_not_listed_is_asked_for_by_its_name(
    binding: GeminiBinding, fake: FakeGemini
) -> None:
    fake.models["gemini-secret"] = GeminiModel(name="gemini-secret")

    assert (await binding.get_model_info("gemini-secret")).name == "gemini-secret"


@pytest.mark.parametrize(
    "name", ["nothing", "../../secret", "a b", "x?key=1", "models/", "x:generateContent"]
)
async def test_unknown_names(binding: GeminiBinding, fake: FakeGemini, name: str) -> None:
    fake.received.clear()
    with pytest.raises(ModelNotFound):
        await binding.get_model_info(name)
    assert all("secret" not in request.path for request in fake.received)


async def test_an_unknown_name_gets_the_names_that_there_are(binding: GeminiBinding) -> None:
    with pytest.raises(ModelNotFound, match="nothing") as raised:
        await binding.get_model_info("nothing")
    assert "gemini-2.5-flash" in str(raised.value.hint)


# --- the default --------------------------------------------------------------------------------------------------


async def test_a_flash_model_stands_in_for_a_default_that_was_retired(
    opened: Opened, fake: FakeGemini, caplog: pytest.LogCaptureFixture
) -> None:
    del fake.models["gemma-3-27b-it"]
    binding = await opened()

    assert (await binding.get_model_info()).name == "gemini-2.5-flash"
    assert "'gemini-2.5-flash' stands in for it" in caplog.text


async def test_a_model_that_answers_with_images_stands_in_for_imagen(
    opened: Opened, fake: FakeGemini
) -> None:
    """As at Google since it retired Imagen there: the steady one, not the experiment."""
    del fake.models["imagen-3.0-generate-002"]
    binding = await opened(GeminiImageBinding)

    assert (await binding.get_model_info()).name == "gemini-2.5-flash-image"


async def test_nothing_stands_in_for_a_model_that_somebody_chose(opened: Opened) -> None:
    binding = await opened(default_model="gemini-1.5-pro")

    with pytest.raises(ModelNotFound, match=r"gemini-1\.5-pro"):
        await binding.get_model_info()


async def test_no_default_at_all_is_a_model_that_is_there(opened: Opened) -> None:
    assert (await (await opened(default_model=None)).get_model_info()).name == "gemini-2.5-flash"


async def test_a_listing_that_fails_is_tried_again_and_not_remembered(
    opened: Opened, fake: FakeGemini
) -> None:
    fake.faults += [refused(503, "no", "/models")] * 2
    binding = await opened(max_retries=0)

    with pytest.raises(Unavailable):
        await binding.list_models()
    assert await binding.list_models()
