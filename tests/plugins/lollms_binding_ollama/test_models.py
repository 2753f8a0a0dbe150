"""What is listed and known of models, and how often Ollama is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import ollama
import pytest

from lollms_binding_ollama import OllamaBinding
from lollms_binding_ollama.models import describe
from lollms_kernel.errors import ModelNotFound
from lollms_kernel.testing.fakes.ollama import FakeOllama, OllamaModel, refused
from lollms_kernel.types import Chunk

Ask = Callable[..., Awaitable[list[Chunk]]]
Opened = Callable[..., Awaitable[OllamaBinding]]


async def test_a_listed_model_has_the_documented_fields(binding: OllamaBinding) -> None:
    info = (await binding.list_models())[0]

    assert (info.name, info.size, info.format) == ("llama3.2:latest", 1_321_098_329, "gguf")
    assert (info.family, info.families, info.parameter_size) == ("llama", ("llama",), "1.2B")
    assert (info.quantization_level, info.license, info.template) == ("Q4_K_M", "Apache-2.0", "{{ .Prompt }}")
    assert info.modified_at is not None
    assert datetime.fromisoformat(info.modified_at).tzinfo == UTC
    assert (info.context_size, info.max_output_tokens, info.supports_audio) == (8192, None, False)
    assert info.details["capabilities"] == ["completion", "tools"]


async def test_vision_and_embedding_are_known_of_models_that_are_not_loaded(binding: OllamaBinding) -> None:
    known = {info.name: info for info in await binding.list_models()}

    assert [name for name, info in known.items() if info.supports_vision] == ["llava:7b"]
    assert known["all-minilm:latest"].output_modalities == ("embedding",)
    assert known["tiny-context:1b"].context_size == 32


async def test_names_are_read_as_ollama_reads_them(binding: OllamaBinding) -> None:
    for name in ("llama3.2", "llama3.2:latest", "LLAMA3.2"):
        assert (await binding.get_model_info(name)).name == "llama3.2:latest"
    with pytest.raises(ModelNotFound, match=r"no model 'llama3\.2:1b'") as raised:
        await binding.get_model_info("llama3.2:1b")
    assert "lollms ollama pull llama3.2:1b" in str(raised.value.hint)


async def test_without_a_default_the_first_model_that_makes_text_is_it(
    opened: Opened, fake: FakeOllama
) -> None:
    assert (await (await opened(default_model="qwen3:4b")).get_model_info()).name == "qwen3:4b"
    fake.models = {
        "e:1": OllamaModel(name="e:1", capabilities=("embedding",)),
        "t:1": OllamaModel(name="t:1"),
    }
    assert (await (await opened()).get_model_info()).name == "t:1"
    del fake.models["t:1"]
    with pytest.raises(ModelNotFound, match="no model that makes text"):
        await (await opened()).get_model_info()


async def test_ollama_is_asked_once_and_not_for_every_request(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    for _ in range(3):
        await binding.list_models()
        await ask(binding)

    assert [request.path for request in fake.received] == ["/api/chat"] * 3


async def test_a_model_that_was_pulled_a_moment_ago_is_found(
    binding: OllamaBinding, fake: FakeOllama
) -> None:
    fake.models["new:1b"] = OllamaModel(name="new:1b", context_length=99)

    assert (await binding.get_model_info("new:1b")).context_size == 99


async def test_a_model_that_was_replaced_is_described_anew(binding: OllamaBinding, fake: FakeOllama) -> None:
    fake.models["llama3.2:latest"] = OllamaModel(name="llama3.2:latest", context_length=99)
    with pytest.raises(ModelNotFound):
        await binding.get_model_info("nobody")  # which makes it look again

    assert (await binding.get_model_info("llama3.2")).context_size == 99


async def test_one_model_that_cannot_be_described_does_not_hide_the_others(
    opened: Opened, fake: FakeOllama
) -> None:
    binding = await opened(max_retries=0)
    fake.models["broken:1b"] = OllamaModel(name="broken:1b")
    fake.faults += [refused(500, "open /secret/blob: no such file", "/api/show")]
    with pytest.raises(ModelNotFound):
        await binding.get_model_info("nobody")

    known = {info.name: info for info in await binding.list_models()}

    assert known["broken:1b"].family == "llama"
    assert "HTTP 500" in known["broken:1b"].details["error"]
    assert "secret" not in str(known)


def shown(**facts: object) -> ollama.ShowResponse:
    return ollama.ShowResponse.model_validate({"model_info": {}, **facts})


@pytest.mark.parametrize(
    ("facts", "families", "images", "output"),
    [
        ({}, ["llama"], False, "text"),
        ({}, ["llama", "clip"], True, "text"),
        ({}, ["mllama"], True, "text"),
        ({"model_info": {"gemma3.vision.block_count": 27}}, ["gemma3"], True, "text"),
        ({"model_info": {"bert.pooling_type": 1}}, ["bert"], False, "embedding"),
        ({"capabilities": ["completion", "vision"]}, ["x"], True, "text"),
    ],
)
def test_versions_without_capabilities_are_read_by_the_parts_of_the_model(
    facts: dict[str, object], families: list[str], images: bool, output: str
) -> None:
    entry = ollama.ListResponse.Model.model_validate({"model": "m", "details": {"families": families}})

    info = describe(entry, shown(**facts), None)

    assert (info.supports_vision, info.output_modalities) == (images, (output,))


def test_a_model_of_which_nothing_is_known_is_listed_all_the_same() -> None:
    info = describe(ollama.ListResponse.Model(model="m"), None, None)

    assert (info.name, info.context_size, info.families, info.license) == ("m", None, None, None)


def test_the_context_is_never_larger_than_the_model_s_own() -> None:
    entry = ollama.ListResponse.Model(model="m")
    show = shown(
        model_info={"general.architecture": "llama", "llama.context_length": 1000},
        parameters='num_ctx 500\nstop "a b"\nbroken',
    )

    assert describe(entry, show, None).context_size == 500
    assert describe(entry, show, 200).context_size == 200
    assert describe(entry, show, 9000).context_size == 1000
