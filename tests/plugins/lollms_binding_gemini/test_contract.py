"""Both bindings keep the contract of all bindings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator

import msgspec
import pytest

from lollms_binding_gemini import GeminiBinding, GeminiImageBinding
from lollms_binding_gemini.address import api_key, base_url
from lollms_binding_gemini.settings import GeminiSettings
from lollms_kernel.contracts import Binding, CountsTokens, Embeds, Tokenizes
from lollms_kernel.errors import BindingUnavailable, ConfigError
from lollms_kernel.testing import BindingContract, make_binding
from lollms_kernel.testing.fakes.gemini import FakeGemini
from lollms_kernel.types import GenerateRequest


class TestGemini(BindingContract):
    @pytest.fixture
    async def binding(self, fake: FakeGemini) -> AsyncIterator[Binding]:
        binding = make_binding(GeminiBinding, {"base_url": fake.url})
        await binding.open()
        yield binding
        await binding.close()


class TestGeminiImages(BindingContract):
    model = "imagen-3.0-generate-002"

    @pytest.fixture
    async def binding(self, fake: FakeGemini) -> AsyncIterator[Binding]:
        binding = make_binding(GeminiImageBinding, {"base_url": fake.url})
        await binding.open()
        yield binding
        await binding.close()

    async def request_for(self, binding: Binding) -> GenerateRequest:
        request = await super().request_for(binding)
        return msgspec.structs.replace(request, generation_type="tti", model=self.model)


class TestGeminiImagesByGemini(TestGeminiImages):
    model = "gemini-2.5-flash-image"


def test_it_counts_and_embeds_and_has_no_tokenizer() -> None:
    binding = make_binding(GeminiBinding)

    assert isinstance(binding, Embeds)
    assert isinstance(binding, CountsTokens)
    assert not isinstance(binding, Tokenizes)
    assert binding.isolation == "inline"
    assert binding.parallel is None


def test_the_defaults_are_the_published_ones() -> None:
    text = msgspec.to_builtins(make_binding(GeminiBinding).settings)
    image = msgspec.to_builtins(make_binding(GeminiImageBinding).settings)
    safety = {f"safety_setting_{harm}": "BLOCK_MEDIUM_AND_ABOVE" for harm in HARMS}

    assert (
        text.items()
        >= {
            "default_model": "gemma-3-27b-it",
            "google_api_key": None,
            "auto_detect_limits": True,
            "ctx_size": 30720,
            "max_output_tokens": 2048,
            **safety,
        }.items()
    )
    assert (
        image.items()
        >= {
            "default_model": "imagen-3.0-generate-002",
            "google_api_key": None,
            "default_number_of_images": 1,
            "default_aspect_ratio": "1:1",
            "default_person_generation": "ALLOW_ADULT",
            **safety,
        }.items()
    )


HARMS = ("harassment", "hate_speech", "sexually_explicit", "dangerous_content")


# --- address and key ----------------------------------------------------------------------------------------------


def settings(**fields: str) -> GeminiSettings:
    return GeminiSettings(type="gemini_binding", binding_instance_name="mine", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "http://user:swordfish@host:1",
        "ftp://host",
        "http://host:x",
        "http://[",
        "host",
        "http://h/?key=swordfish",
    ],
)
def test_an_address_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="`base_url`") as raised:
        make_binding(GeminiBinding, {"base_url": url})
    assert "swordfish" not in raised.value.detail


def test_an_address_may_have_a_path_and_the_version() -> None:
    assert (
        base_url(settings(base_url="https://gateway.example/gemini/v1beta/"))
        == "https://gateway.example/gemini"
    )


def test_the_key_of_the_environment_goes_to_google_and_to_nobody_else() -> None:
    environment = {"GOOGLE_API_KEY": "from-outside"}

    assert api_key(settings(), environment) == "from-outside"
    assert api_key(settings(google_api_key="own"), environment) == "own"
    assert api_key(settings(base_url="https://gateway.example"), environment) is None
    assert api_key(settings(base_url="http://generativelanguage.googleapis.com"), environment) is None


async def test_without_a_key_for_google_it_does_not_open_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)

    with pytest.raises(BindingUnavailable, match="no key") as raised:
        await make_binding(GeminiBinding).open()
    assert "GOOGLE_API_KEY" in str(raised.value.hint)


async def test_opening_does_not_wait_for_the_service(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing listens at this port; the log says so."""
    binding = make_binding(GeminiBinding, {"base_url": "http://127.0.0.1:9"})
    assert isinstance(binding, GeminiBinding)
    await binding.open()
    assert binding._greeting is not None

    await binding._greeting
    await binding.close()

    assert "cannot be reached" in caplog.text


# --- the library --------------------------------------------------------------------------------------------------


async def test_a_library_that_is_not_installed_is_named_with_its_cure() -> None:
    """The tests' environment has google-genai alone: the other one would pin protobuf."""
    binding = make_binding(GeminiBinding, {"base_url": "http://127.0.0.1:9", "sdk": "google-generativeai"})

    with pytest.raises(BindingUnavailable, match="google-generativeai is not installed") as raised:
        await binding.open()
    assert "google-generativeai==0.8.6" in str(raised.value.hint)
    assert GeminiBinding.unavailable_reason() is None


def test_importing_the_package_imports_no_library_of_the_vendor() -> None:
    vendor = "{'google.genai', 'google.auth', 'httpx2', 'pydantic', 'requests'}"
    code = f"import sys, lollms_binding_gemini; print({vendor} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "set()"
