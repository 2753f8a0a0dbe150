"""The binding keeps the contract of all bindings."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lollms_binding_ollama import OllamaBinding
from lollms_kernel.contracts import Binding, Embeds, Tokenizes
from lollms_kernel.errors import ConfigError
from lollms_kernel.testing import BindingContract, make_binding
from lollms_kernel.testing.fakes.ollama import FakeOllama


class TestOllama(BindingContract):
    @pytest.fixture
    async def binding(self, fake: FakeOllama) -> AsyncIterator[Binding]:
        binding = make_binding(OllamaBinding, {"host": fake.url})
        await binding.open()
        yield binding
        await binding.close()


def test_it_embeds_and_has_no_tokenizer() -> None:
    binding = make_binding(OllamaBinding)

    assert isinstance(binding, Embeds)
    assert not isinstance(binding, Tokenizes)
    assert binding.isolation == "inline"


@pytest.mark.parametrize("host", ["http://user:secret@host:1", "ftp://host", "http://host:x", "http://["])
def test_a_host_that_is_no_address_is_refused_without_being_repeated(host: str) -> None:
    with pytest.raises(ConfigError, match="`host`") as raised:
        make_binding(OllamaBinding, {"host": host})
    assert "secret" not in raised.value.detail


async def test_opening_does_not_wait_for_the_service(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing listens at this port; the log says so and how to start it."""
    binding = make_binding(OllamaBinding, {"host": "http://127.0.0.1:9"})
    assert isinstance(binding, OllamaBinding)
    await binding.open()
    assert binding._greeting is not None

    await binding._greeting
    await binding.close()

    assert "cannot be reached. Start it with `ollama serve`" in caplog.text


async def test_closing_at_once_ends_the_look_for_the_service(fake: FakeOllama) -> None:
    fake.faults = []
    binding = make_binding(OllamaBinding, {"host": fake.url})
    await binding.open()
    await binding.close()

    with pytest.raises(Exception, match="not open"):
        await binding.list_models()
