"""Which secrets go where: nobody gets what belongs to somebody else."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from lollms_binding_openai import DalleBinding, OpenAIBinding
from lollms_binding_openai.client import OPENAI_URL, api_key, base_url, is_openai, make_client
from lollms_binding_openai.settings import OpenAISettings
from lollms_kernel.config.secrets import redact
from lollms_kernel.errors import BindingUnavailable, ConfigError, LollmsError
from lollms_kernel.testing import make_binding
from lollms_kernel.testing.fakes.openai import FakeOpenAI
from lollms_kernel.types import Chunk

Open = Callable[..., Awaitable[Any]]
Ask = Callable[..., Awaitable[list[Chunk]]]

KEY = "sk-secret-of-the-tests-0123456789"


def own(**fields: Any) -> OpenAISettings:
    return OpenAISettings(type="openai_binding", binding_instance_name="i", **fields)


# --- keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "from-environment"),
        ({"api_key": KEY}, KEY),
        ({"api_key": "  "}, "from-environment"),
        ({"base_url": "https://api.openai.com/v1"}, "from-environment"),
        ({"base_url": "https://eu.api.openai.com/v1"}, "from-environment"),
        ({"base_url": "http://api.openai.com/v1"}, None),
        ({"base_url": "https://api.openai.com.evil.example/v1"}, None),
        ({"base_url": "https://evilapi.openai.com/v1"}, None),
        ({"base_url": "https://example.org/api.openai.com"}, None),
        ({"base_url": "http://127.0.0.1:8000/v1"}, None),
        ({"base_url": "http://127.0.0.1:8000/v1", "api_key": KEY}, KEY),
    ],
)
def test_the_environment_s_key_is_for_openai_alone(fields: dict[str, Any], expected: str | None) -> None:
    assert api_key(own(**fields), {"OPENAI_API_KEY": "from-environment"}) == expected


def test_without_any_key_openai_is_not_asked_at_all() -> None:
    with pytest.raises(BindingUnavailable) as caught:
        make_client(own())
    assert "OPENAI_API_KEY" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, OPENAI_URL),
        ("", OPENAI_URL),
        (" http://h:1/v1/ ", "http://h:1/v1"),
        ("https://[::1]/v1", "https://[::1]/v1"),
    ],
)
def test_addresses_are_read_as_meant(url: str | None, expected: str) -> None:
    assert base_url(own(base_url=url)) == expected
    assert is_openai(expected) == (expected == OPENAI_URL)


@pytest.mark.parametrize(
    "url", ["example.org/v1", "ftp://h/v1", "http://", "http://h:99999/v1", "https://me:pw@h/v1"]
)
def test_what_is_no_address_or_holds_a_secret_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        base_url(own(base_url=url))
    assert "pw" not in caught.value.detail


async def test_another_service_gets_its_own_key_and_nothing_of_the_environment(
    fake: FakeOpenAI, open_binding: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-secret")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: 1\nAuthorization: Bearer sk-custom\nx-other: 2")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")

    await ask(await open_binding(OpenAIBinding, fake))
    await ask(await open_binding(OpenAIBinding, fake, api_key=KEY))

    without, with_key = fake.requests_to("/chat")
    assert "authorization" not in without.headers
    assert with_key.headers["authorization"] == f"Bearer {KEY}"
    for request in fake.received:
        names = {"openai-organization", "openai-project", "x-secret", "x-other"}
        assert not names & request.headers.keys()
        assert "sk-of-openai" not in str(request.headers)


async def test_openai_itself_gets_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"data": []})

    client = make_client(own())
    client._client._transport = httpx2.MockTransport(answer)  # the real address must not be asked by tests
    try:
        await client.get("/models", cast_to=object)
    finally:
        await client.close()

    assert str(seen[0].url) == f"{OPENAI_URL}/models"
    assert seen[0].headers["authorization"] == "Bearer sk-of-openai"
    assert seen[0].headers["openai-organization"] == "org"


# --- nothing leaks ------------------------------------------------------------------------------------------


async def test_a_wrong_key_is_said_without_the_key_the_address_or_the_service_s_words(
    open_binding: Open, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    errors: list[LollmsError] = []
    with FakeOpenAI(api_key="another") as fake:
        binding = await open_binding(OpenAIBinding, fake, api_key=KEY)
        painter = await open_binding(DalleBinding, fake, api_key=KEY)
        for call in (
            binding.list_models(),
            ask(binding),
            ask(painter, generation_type="tti"),
            binding.embed(["a"], "m"),
        ):
            with pytest.raises(BindingUnavailable, match="refused the key") as caught:
                await call
            errors.append(caught.value)
        port = str(fake.port)

    for error in errors:
        assert "api_key" in str(error.hint)
        assert error.__cause__ is None
        for secret in (KEY, port, "Incorrect"):
            assert secret not in error.detail
    assert KEY not in caplog.text


def test_listings_have_no_key() -> None:
    for kind in (OpenAIBinding, DalleBinding):
        settings = make_binding(kind, {"api_key": KEY}).settings
        assert KEY not in str(redact(settings))
        assert "api_key" not in redact(settings)


async def test_a_key_that_no_header_can_carry_is_not_shown(
    fake: FakeOpenAI, open_binding: Open, ask: Ask
) -> None:
    for key in ("sk-\nsecret", "sk-gehäim"):
        with pytest.raises(LollmsError) as caught:
            await ask(await open_binding(OpenAIBinding, fake, api_key=key, max_retries=0))
        assert "secret" not in caught.value.detail
        assert "gehäim" not in caught.value.detail


# --- the way there ------------------------------------------------------------------------------------------


async def test_the_proxy_of_the_environment_is_used(
    fake: FakeOpenAI, open_binding: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", fake.url)
    monkeypatch.delenv("NO_PROXY", raising=False)

    await ask(await open_binding(OpenAIBinding, fake, base_url="http://service.invalid/v1"))

    assert fake.requests_to("/chat")[-1].headers["host"] == "service.invalid"


async def test_no_proxy_is_used_for_this_machine(
    fake: FakeOpenAI, open_binding: Open, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    await ask(await open_binding(OpenAIBinding, fake))

    assert fake.requests_to("/chat")


def test_the_library_is_not_imported_with_the_plugin() -> None:
    program = "import sys, lollms_binding_openai; print(sorted({'openai', 'httpx2', 'pydantic'} & sys.modules.keys()))"

    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert shown.stdout.strip() == "[]"


def test_a_missing_library_is_said_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    reason = OpenAIBinding.unavailable_reason()

    assert reason is not None
    assert "pip install" in str(reason.hint)
