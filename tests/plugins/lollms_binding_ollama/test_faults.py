"""What goes wrong with Ollama becomes an error of ours: clear, with its cure, and without what Ollama wrote."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lollms_binding_ollama import OllamaBinding
from lollms_kernel.errors import (
    BindingUnavailable,
    ContextOverflow,
    GenerationFailed,
    InvalidRequest,
    LollmsError,
    ModelLoadFailed,
    ModelNotFound,
    NotSupported,
    Unavailable,
)
from lollms_kernel.testing import make_binding
from lollms_kernel.testing.fakes import Fault, dropped, garbage, refusal, silence, slow, stalled
from lollms_kernel.testing.fakes.ollama import FakeOllama, refused, stream_error
from lollms_kernel.types import Chunk

Ask = Callable[..., Awaitable[list[Chunk]]]
Opened = Callable[..., Awaitable[OllamaBinding]]
CHAT = "/api/chat"
SECRET = "sk-very-secret"


@pytest.mark.parametrize(
    ("status", "message", "kind", "cure"),
    [
        (404, "model 'gone' not found", ModelNotFound, "lollms ollama pull"),
        (400, "the input length exceeds the context length", ContextOverflow, "num_ctx"),
        (
            500,
            "model requires more system memory (9.1 GiB) than is available (2 GiB)",
            ModelLoadFailed,
            "smaller",
        ),
        (
            500,
            "llama runner process has terminated: cudaMalloc failed: out of memory",
            ModelLoadFailed,
            "smaller",
        ),
        (
            500,
            "unable to load model: /usr/share/ollama/.ollama/models/blobs/sha256-1",
            ModelLoadFailed,
            "log",
        ),
        (400, '"all-minilm" does not support chat', NotSupported, "embeddings"),
        (400, '"llama3.2" does not support thinking', InvalidRequest, "`think`"),
        (400, "invalid options: num_gpu", InvalidRequest, "suit"),
        (401, "unauthorized", BindingUnavailable, "`api_key`"),
        (403, "", BindingUnavailable, "`api_key`"),
        (429, "too many requests", Unavailable, "later"),
        (500, "something", Unavailable, "later"),
        (503, "server busy, please try again.  maximum pending requests exceeded", Unavailable, "later"),
    ],
)
async def test_refusals(
    opened: Opened, ask: Ask, fake: FakeOllama, status: int, message: str, kind: type[LollmsError], cure: str
) -> None:
    binding = await opened(max_retries=0)
    fake.faults.append(refused(status, message, CHAT))

    with pytest.raises(kind) as raised:
        await ask(binding)

    assert type(raised.value) is kind
    assert cure in str(raised.value.hint)
    assert not message or message not in raised.value.detail
    assert fake.url not in raised.value.detail


async def test_a_refusal_that_passes_is_tried_again_and_the_client_notices_nothing(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama, text_of: Callable[[list[Chunk]], str]
) -> None:
    fake.faults += [refused(503, "busy", CHAT), refused(429, "slow down", CHAT, retry_after="0")]

    assert text_of(await ask(binding, "hello")) == "hello"
    assert len(fake.requests_to(CHAT)) == 3


async def test_retry_after_reaches_the_client(opened: Opened, ask: Ask, fake: FakeOllama) -> None:
    fake.faults.append(refused(429, "slow down", CHAT, retry_after="7"))

    with pytest.raises(Unavailable) as raised:
        await ask(await opened(max_retries=0))
    assert raised.value.retry_after == 7


async def test_an_error_in_the_middle_is_not_tried_again(
    binding: OllamaBinding, fake: FakeOllama, ask: Ask
) -> None:
    fake.faults.append(stream_error(2, f"CUDA error at {SECRET}"))

    with pytest.raises(GenerationFailed, match="failed while it answered") as raised:
        await ask(binding, "one two three four")

    assert SECRET not in raised.value.detail
    assert len(fake.requests_to(CHAT)) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (dropped(2, CHAT), Unavailable, "broke"),
        (garbage(2, b"", CHAT), Unavailable, "broke"),  # a clean end without the last part
        (garbage(2, b"{not json\n", CHAT), GenerationFailed, "cannot be read"),
        (garbage(2, b"[1, 2]\n", CHAT), GenerationFailed, "cannot be read"),
        (garbage(2, b'{"message": 5}\n', CHAT), GenerationFailed, "cannot be read"),
        (garbage(2, b"<html>\n", CHAT), GenerationFailed, "cannot be read"),
    ],
)
async def test_broken_streams(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama, fault: Fault, kind: type[LollmsError], message: str
) -> None:
    fake.faults.append(fault)

    with pytest.raises(kind, match=message):
        await ask(binding, "one two three four")
    assert len(fake.requests_to(CHAT)) == 1


async def test_characters_cut_by_the_network_arrive_whole(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama, text_of: Callable[[list[Chunk]], str]
) -> None:
    fake.faults.append(Fault(path=CHAT, piece=1))

    assert text_of(await ask(binding, "Ä €uro 🦙 lama")) == "Ä €uro 🦙 lama"


async def test_half_a_character_becomes_the_replacement_character(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama, text_of: Callable[[list[Chunk]], str]
) -> None:
    half = b'{"model":"m","message":{"role":"assistant","content":" caf\xc3"},"done":false}\n'
    fake.faults.append(garbage(1, half, CHAT, ending="go on"))

    assert text_of(await ask(binding, "one two")) == "one caf� two"


async def test_a_slow_first_token_is_waited_for(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama, text_of: Callable[[list[Chunk]], str]
) -> None:
    fake.faults.append(slow(0.3, CHAT))

    assert text_of(await ask(binding, "hello")) == "hello"


async def test_silence_before_the_first_token_ends_at_the_limit_and_closes_the_connection(
    opened: Opened, ask: Ask, fake: FakeOllama
) -> None:
    binding = await opened(first_token_timeout=0.2)
    fake.faults.append(silence(CHAT))

    with pytest.raises(Unavailable, match="did not begin to answer"):
        await ask(binding)
    (request,) = fake.requests_to(CHAT)
    await fake.until(request.left)


async def test_silence_in_the_middle_ends_at_the_idle_limit(
    opened: Opened, ask: Ask, fake: FakeOllama
) -> None:
    binding = await opened(idle_timeout=0.2)
    fake.faults.append(stalled(1, CHAT))

    with pytest.raises(Unavailable, match="in the middle"):
        await ask(binding, "one two")
    await fake.until(fake.requests_to(CHAT)[0].left)


async def test_nobody_there() -> None:
    binding = make_binding(OllamaBinding, {"host": "http://127.0.0.1:9"})
    await binding.open()
    with pytest.raises(BindingUnavailable, match="cannot be reached") as raised:
        await binding.list_models()
    await binding.close()

    assert str(raised.value.hint).startswith("Start it with `ollama serve`")
    assert "127.0.0.1" not in raised.value.detail


async def test_another_server_at_the_address(opened: Opened, ask: Ask, fake: FakeOllama) -> None:
    binding = await opened()
    fake.faults.append(refusal(301, path=CHAT, location="https://elsewhere.example/"))
    with pytest.raises(BindingUnavailable, match="something else answers") as raised:
        await ask(binding)
    assert "`host`" in str(raised.value.hint)


# --- keys and the environment -----------------------------------------------------------------------------------


async def test_the_key_is_sent_and_nowhere_shown(
    opened: Opened, ask: Ask, fake: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    fake.api_key = SECRET
    binding = await opened(api_key=SECRET)
    await ask(binding)
    assert fake.received[-1].headers["authorization"] == f"Bearer {SECRET}"

    fake.api_key = "another"
    with pytest.raises(BindingUnavailable, match="refused the key") as raised:
        await ask(binding)

    assert SECRET not in raised.value.detail + str(await binding.list_models())
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("lollms"))
    assert SECRET not in ours


async def test_the_environment_changes_neither_host_nor_key(
    opened: Opened, ask: Ask, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("OLLAMA_API_KEY", SECRET)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(netrc))

    await ask(await opened())

    assert "authorization" not in fake.received[-1].headers


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    opened: Opened, ask: Ask, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    await ask(await opened())

    assert len(fake.requests_to(CHAT)) == 1


async def test_a_proxy_of_the_environment_is_used_for_other_machines(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake stands in for a proxy: it gets the whole address of an Ollama that does not exist."""
    monkeypatch.setenv("HTTP_PROXY", fake.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    binding = make_binding(OllamaBinding, {"host": "http://ollama.example:11434"})
    await binding.open()
    await binding.list_models()
    await binding.close()

    assert fake.received[0].headers["host"] == "ollama.example:11434"
