"""Checks of services: what answers, what does not, and that no key is ever told."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from lollms_kernel.testing.fakes import FakeServer, Received, Reply, silence
from lollms_kernel.testing.fakes.ollama import FakeOllama
from lollms_kernel.wizard.checks import check

KEY = "sk-a-secret"


class FakeService(FakeServer):
    """Lists models as OpenAI and Google do, to whoever has the key."""

    def reply(self, request: Received) -> Reply:
        sent = request.headers.get("authorization"), request.headers.get("x-goog-api-key")
        if f"Bearer {KEY}" not in sent and KEY not in sent:
            return Reply.of({"error": {"message": f"not {sent}"}}, status=401)
        if request.path == "/v1/models":
            return Reply.of({"data": [{"id": "gpt-4o-mini"}, {"id": "dall-e-3"}]})
        if request.path == "/v1beta/models":
            return Reply.of({"models": [{"name": "models/gemini-2.5-flash"}]})
        return Reply.of({}, status=404)


def test_given_ollama_when_checked_then_its_models_are_named() -> None:
    with FakeOllama() as fake:
        found = check("ollama_binding", {"host": fake.url})
        by_name = check("ollama_binding", {"host": fake.url.removeprefix("http://")})

    assert found is not None
    assert found.ok
    assert set(found.models) == set(fake.models)
    assert found == by_name


def test_given_nothing_at_the_address_when_checked_then_it_says_so_with_a_cure() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = check("ollama_binding", {"host": f"http://127.0.0.1:{free.getsockname()[1]}"})

    assert found is not None
    assert not found.ok
    assert "does not answer" in found.text
    assert "ollama serve" in found.text


def test_given_a_service_that_never_answers_when_checked_then_it_gives_up() -> None:
    with FakeOllama() as fake:
        fake.faults.append(silence())
        found = check("ollama_binding", {"host": fake.url})

    assert found is not None
    assert "does not answer" in found.text


@pytest.mark.parametrize("address", ["http://[", "ftp://x", "http://", "nonsense://::", "http://a b"])
def test_given_an_address_that_is_none_when_checked_then_it_is_a_result_and_no_error(address: str) -> None:
    found = check("ollama_binding", {"host": address})

    assert found is not None
    assert not found.ok


@pytest.mark.parametrize(
    ("type_name", "setting", "path"),
    [
        ("openai_binding", "api_key", "/v1"),
        ("dalle_binding", "api_key", "/v1"),
        ("gemini_binding", "google_api_key", ""),
        ("gemini_image_binding", "google_api_key", ""),
    ],
)
def test_given_a_key_when_checked_then_the_service_says_whether_it_is_right(
    type_name: str, setting: str, path: str
) -> None:
    with FakeService() as fake:
        right = check(type_name, {setting: KEY, "base_url": fake.url + path}, {})
        wrong = check(type_name, {setting: "sk-another-secret", "base_url": fake.url + path}, {})
        broken = check(type_name, {setting: "sk-\nanother-secret", "base_url": fake.url + path}, {})

    assert right is not None
    assert right.ok
    assert wrong is not None
    assert "refuses the key" in wrong.text
    assert broken is not None
    assert "characters that no key has" in broken.text
    assert "secret" not in right.text + wrong.text + broken.text


@pytest.mark.parametrize(
    ("type_name", "variable"), [("openai_binding", "OPENAI_API_KEY"), ("gemini_binding", "GOOGLE_API_KEY")]
)
@pytest.mark.parametrize(
    "settings", [{}, {"api_key": "${OPENAI_API_KEY}", "google_api_key": "${GOOGLE_API_KEY}"}]
)
def test_given_no_key_when_checked_then_nobody_is_asked_and_the_variable_is_named(
    type_name: str, variable: str, settings: dict[str, Any]
) -> None:
    found = check(type_name, settings, {})

    assert found is not None
    assert not found.ok
    assert variable in found.text


def test_given_something_else_at_the_address_when_checked_then_it_says_so() -> None:
    with FakeOllama() as fake:
        found = check("openai_binding", {"api_key": KEY, "base_url": f"{fake.url}/api/tags#"}, {})
        other = check("openai_binding", {"api_key": KEY, "base_url": fake.url}, {})

    assert found is not None
    assert "is not" in found.text
    assert other is not None
    assert "404" in other.text


def test_given_an_engine_of_this_machine_when_checked_then_there_is_nothing_to_ask() -> None:
    assert check("llamacpp_binding", {}) is None
