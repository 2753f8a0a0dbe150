"""What models a service has, and what is known of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lollms_binding_openai import DalleBinding, OpenAIBinding
from lollms_binding_openai.catalogue import inputs_of, kind_of, limits_of, reasons
from lollms_binding_openai.listing import Entry, read_listing, with_props
from lollms_kernel.errors import BindingUnavailable, InvalidRequest, ModelNotFound, NotSupported
from lollms_kernel.testing import make_binding
from lollms_kernel.testing.fakes import refusal
from lollms_kernel.testing.fakes.openai import FakeOpenAI, OpenAIModel
from lollms_kernel.types import ModelInfo

Open = Callable[..., Awaitable[Any]]


def names(infos: list[ModelInfo]) -> list[str]:
    return [info.name for info in infos]


# --- listings -----------------------------------------------------------------------------------------------


async def test_each_binding_type_lists_what_it_can_use(
    binding: OpenAIBinding, painter: DalleBinding, fake: FakeOpenAI
) -> None:
    texts, pictures = names(await binding.list_models()), names(await painter.list_models())

    assert pictures == ["dall-e-2", "dall-e-3", "gpt-image-2.5-flare"]
    assert set(texts) == fake.models.keys() - set(pictures) - {"omni-moderation-latest"}


async def test_models_say_what_they_take_and_make(binding: OpenAIBinding) -> None:
    infos = {info.name: info for info in await binding.list_models()}

    assert infos["gpt-4o"].supports_vision
    assert infos["gpt-4o"].model_type == "ttt"
    assert infos["gpt-4o"].modified_at == "2026-01-02T03:04:05+00:00"
    assert infos["gpt-4o-audio-preview"].supports_audio
    assert (infos["tts-1"].model_type, infos["tts-1"].output_modalities) == ("tts", ("audio",))
    assert (infos["whisper-1"].model_type, infos["whisper-1"].input_modalities) == ("stt", ("text", "audio"))
    assert infos["text-embedding-3-small"].output_modalities == ("embedding",)


async def test_the_listing_is_asked_for_once(binding: OpenAIBinding, fake: FakeOpenAI) -> None:
    for _ in range(3):
        await binding.get_model_info("gpt-4o")
        await binding.list_models()

    assert len(fake.requests_to("/models")) == 1


async def test_a_new_model_is_found_without_a_restart(
    binding: OpenAIBinding, fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelNotFound):
        await binding.get_model_info("gpt-7")
    asked = len(fake.requests_to("/models"))
    fake.models["gpt-7"] = OpenAIModel(id="gpt-7")

    with pytest.raises(ModelNotFound) as caught:  # asking again at once would let clients flood the service
        await binding.get_model_info("gpt-7")
    assert len(fake.requests_to("/models")) == asked
    assert "gpt-4o-mini" in str(caught.value.hint)

    monkeypatch.setattr("lollms_binding_openai.service.AGAIN", 0.0)
    assert (await binding.get_model_info("gpt-7")).name == "gpt-7"


async def test_what_was_listed_last_counts_while_the_listing_fails(
    binding: OpenAIBinding, fake: FakeOpenAI
) -> None:
    await binding.list_models()
    binding._memory.forget()
    fake.faults += [refusal(500, b"", "/models")] * 3

    assert (await binding.get_model_info("gpt-4o")).name == "gpt-4o"
    assert len(fake.requests_to("/models")) == 4


async def test_vllm_tells_the_context_size(open_binding: Open) -> None:
    with FakeOpenAI([OpenAIModel(id="Qwen/Qwen3-8B", context_size=32_768)], flavour="vllm") as fake:
        info = await (await open_binding(OpenAIBinding, fake)).get_model_info()

    assert (info.name, info.context_size) == ("Qwen/Qwen3-8B", 32_768)


async def test_llama_server_tells_what_is_loaded(open_binding: Open) -> None:
    with FakeOpenAI([OpenAIModel(id="qwen.gguf", context_size=8192)], flavour="llama-server") as fake:
        info = await (await open_binding(OpenAIBinding, fake)).get_model_info()

    assert info.context_size == 8192  # what it runs with, not the four times of that which it was trained for
    assert (info.format, info.parameter_size, info.size) == ("gguf", "0.5B", 397_807_616)
    assert (info.model_type, info.input_modalities) == ("vlm", ("text", "image", "document"))
    assert info.template == "{{ messages }}"


async def test_without_props_llama_server_s_listing_has_to_do(open_binding: Open) -> None:
    with FakeOpenAI([OpenAIModel(id="qwen.gguf", context_size=8192)], flavour="llama-server") as fake:
        fake.faults.append(refusal(500, b"", "/props"))
        info = await (await open_binding(OpenAIBinding, fake)).get_model_info()

    assert info.context_size == 4 * 8192


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_a_service_that_lists_nothing_has_what_it_is_asked_for(
    status: int, fake: FakeOpenAI, open_binding: Open
) -> None:
    fake.faults.append(refusal(status, b"", "/models"))
    binding = await open_binding(OpenAIBinding, fake, default_model="my-app")

    assert names(await binding.list_models()) == ["my-app"]
    assert (await binding.get_model_info("anything")).name == "anything"
    assert (await binding.get_model_info()).name == "my-app"


async def test_settings_win_over_what_is_found_out(fake: FakeOpenAI, open_binding: Open) -> None:
    binding = await open_binding(OpenAIBinding, fake, context_size=16_000, input_modalities=["text"])

    info = await binding.get_model_info("gpt-4o")
    speech = await binding.get_model_info("tts-1")

    assert (info.context_size, info.input_modalities) == (16_000, ("text",))
    assert speech.context_size is None


async def test_names_that_tell_nothing_are_told_by_the_settings(open_binding: Open) -> None:
    with FakeOpenAI(
        [OpenAIModel(id="voice-7", makes="speech"), OpenAIModel(id="artist", makes="image")]
    ) as fake:
        speaking = await open_binding(
            OpenAIBinding, fake, model_types={"voice-*": "tts"}, default_model="voice-7"
        )
        painting = await open_binding(DalleBinding, fake, default_model="artist")

        assert (await speaking.get_model_info()).output_modalities == ("audio",)
        assert (await painting.get_model_info()).output_modalities == ("image",)


async def test_a_request_without_a_model_needs_a_default_where_none_may_stand_in(open_binding: Open) -> None:
    with FakeOpenAI([OpenAIModel(id="bge-m3", makes="vectors")]) as fake:
        binding = await open_binding(OpenAIBinding, fake, default_model=None)
        with pytest.raises(ModelNotFound, match="No model was named"):
            await binding.get_model_info()


async def test_the_untouched_default_is_not_insisted_on_elsewhere(open_binding: Open) -> None:
    with FakeOpenAI(
        [OpenAIModel(id="bge-m3", makes="vectors"), OpenAIModel(id="llama")], flavour="vllm"
    ) as fake:
        untouched = await open_binding(OpenAIBinding, fake)
        chosen = await open_binding(OpenAIBinding, fake, default_model="gpt-4o")

        assert (await untouched.get_model_info()).name == "llama"
        with pytest.raises(ModelNotFound):
            await chosen.get_model_info()


async def test_a_service_that_is_down_does_not_block_the_start_and_is_named(fake: FakeOpenAI) -> None:
    binding = make_binding(OpenAIBinding, {"base_url": "http://127.0.0.1:9/v1", "max_retries": 0})

    await binding.open()
    try:
        with pytest.raises(BindingUnavailable, match="cannot be reached") as caught:
            await binding.list_models()
    finally:
        await binding.close()
    assert "base_url" in str(caught.value.hint)
    assert "127.0.0.1" not in caught.value.detail


# --- what is said of models ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "context", "output", "inputs"),
    [
        (
            {"context_length": 128_000, "architecture": {"input_modalities": ["text", "image", "file"]}},
            128_000,
            None,
            ("text", "image", "document"),
        ),
        ({"context_window": 8192, "max_completion_tokens": 1024}, 8192, 1024, None),
        (
            {"max_context_length": 32_768, "capabilities": {"vision": False}},
            32_768,
            None,
            ("text", "document"),
        ),
        ({"top_provider": {"max_completion_tokens": 99}}, None, 99, None),
        ({"context_length": "big", "capabilities": [], "created": -5, "meta": 3}, None, None, None),
    ],
)
def test_fields_of_known_services_are_read(
    raw: dict[str, Any], context: int | None, output: int | None, inputs: tuple[str, ...] | None
) -> None:
    info = Entry(id="some/model", raw=raw).describe("ttt", official=False)

    assert (info.context_size, info.max_output_tokens) == (context, output)
    assert info.input_modalities == (inputs or ("text", "image", "document"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gpt-4o", "ttt"),
        ("llama-3.3-70b-versatile", "ttt"),
        ("deepseek-ai/DeepSeek-R1", "ttt"),
        ("gpt-4o-mini-tts", "tts"),
        ("tts-1-hd", "tts"),
        ("hexgrad/kokoro", "tts"),
        ("whisper-large-v3", "stt"),
        ("gpt-4o-mini-transcribe", "stt"),
        ("text-embedding-ada-002", "embedding"),
        ("BAAI/bge-m3", "embedding"),
        ("nomic-embed-text", "embedding"),
        ("chatgpt-image-latest", "tti"),
        ("black-forest-labs/flux-dev", "tti"),
        ("omni-moderation-latest", None),
        ("gpt-realtime", None),
        ("sora-2", None),
        ("gpt-5.1-codex", None),
        ("o1-pro-2025-03-19", None),
        ("gemini-2.5-pro", "ttt"),
    ],
)
def test_names_tell_what_a_model_makes(name: str, kind: str | None) -> None:
    assert kind_of(name, {}) == kind


def test_what_is_told_wins_over_the_name() -> None:
    assert kind_of("whisper-chat", {"whisper-ch*": "ttt"}) == "ttt"


def test_known_blind_models_do_not_see_and_unknown_ones_may() -> None:
    assert "image" not in inputs_of("gpt-3.5-turbo", "ttt")
    assert "image" not in inputs_of("gpt-4-0613", "ttt")
    assert "image" in inputs_of("gpt-4.1-mini", "ttt")
    assert "image" in inputs_of("my-own-model", "ttt")


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("gpt-4o-mini-2024-07-18", (128_000, 16_384)),
        ("gpt-4", (8_192, 8_192)),
        ("gpt-4-turbo-2024-04-09", (128_000, 4_096)),
        ("gpt-4.1-nano", (1_047_576, 32_768)),
        ("gpt-3.5-turbo-0125", (16_385, 4_096)),
        ("ft:gpt-4o-mini-2024-07-18:me::abc", (128_000, 16_384)),
        ("gpt-5-mini", (400_000, 128_000)),
        ("o4-mini", (200_000, 100_000)),
        ("gpt-9-new", (None, None)),
        ("llama", (None, None)),
    ],
)
def test_limits_of_openai_s_own_models_are_known(name: str, limits: tuple[int | None, int | None]) -> None:
    assert limits_of(name) == limits
    elsewhere = Entry(id=name).describe("ttt", official=False)
    assert elsewhere.context_size is None  # somebody else's model of that name may have any size


def test_models_that_think_first_are_known() -> None:
    assert all(
        map(reasons, ["o1", "o3-mini", "gpt-5", "gpt-5.1-codex", "openai/gpt-6-sol", "codex-mini-latest"])
    )
    assert not any(map(reasons, ["gpt-4o", "gpt-5-chat-latest", "qwen3", "olmo1", "gpt-4.1"]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = (
    "id",
    "owned_by",
    "created",
    "meta",
    "architecture",
    "capabilities",
    "top_provider",
    "context_length",
)


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries({"data": st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON), max_size=3)})
    | JSON
)
def test_whatever_a_service_lists_never_breaks_the_listing(answer: Any) -> None:
    for entry in read_listing(answer) or ():
        info = entry.describe("ttt", official=True)
        assert with_props(info, answer).name == entry.id


# --- vectors and tokens -------------------------------------------------------------------------------------


async def test_vectors_come_in_the_order_of_the_texts(binding: OpenAIBinding) -> None:
    vectors = await binding.embed(["a", "bcd"], "text-embedding-3-small")

    assert [(round(vector[0], 6), vector[1]) for vector in vectors] == [(0.01, 0.0), (0.03, 1.0)]


async def test_without_a_name_the_configured_or_the_first_embedding_model_makes_them(
    fake: FakeOpenAI, open_binding: Open
) -> None:
    await (await open_binding(OpenAIBinding, fake)).embed(["a"], None)
    assert fake.received[-1].json["model"] == "text-embedding-3-small"

    with pytest.raises(ModelNotFound):
        await (await open_binding(OpenAIBinding, fake, embedding_model="other")).embed(["a"], None)


async def test_texts_without_vectors_are_refused(binding: OpenAIBinding, open_binding: Open) -> None:
    with pytest.raises(InvalidRequest):
        await binding.embed(["a", ""], None)
    with FakeOpenAI([OpenAIModel(id="gpt-4o")]) as fake:
        with_none = await open_binding(OpenAIBinding, fake)
        with pytest.raises(NotSupported, match="lists no model"):
            await with_none.embed(["a"], None)


@pytest.mark.parametrize("flavour", ["vllm", "llama-server"])
async def test_engines_give_tokens(flavour: Any, open_binding: Open) -> None:
    with FakeOpenAI([OpenAIModel(id="m")], flavour=flavour) as fake:
        binding = await open_binding(OpenAIBinding, fake)

        assert await binding.tokenize("ab", None, True, False) == [256, 97, 98]
        assert await binding.tokenize("ab", "m", False, False) == [97, 98]
        assert await binding.detokenize([97, 98], None) == "ab"
        with pytest.raises(InvalidRequest):
            await binding.tokenize("ab", None, False, True)
        with pytest.raises(ModelNotFound):
            await binding.tokenize("ab", "other", False, False)


async def test_an_engine_without_its_tokenizer_does_not_give_any(open_binding: Open) -> None:
    with FakeOpenAI([OpenAIModel(id="m")], flavour="vllm") as fake:
        fake.faults.append(refusal(404, b"", "/tokenize"))
        binding = await open_binding(OpenAIBinding, fake)
        with pytest.raises(NotSupported):
            await binding.tokenize("ab", None, False, False)
