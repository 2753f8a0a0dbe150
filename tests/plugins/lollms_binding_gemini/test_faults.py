"""What goes wrong at the service, and what clients are told of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from lollms_binding_gemini import GeminiBinding
from lollms_kernel.errors import (
    BindingUnavailable,
    ContextOverflow,
    GenerationFailed,
    InvalidRequest,
    LollmsError,
    ModelNotFound,
    NotSupported,
    PayloadTooLarge,
    Unavailable,
    UnsupportedInput,
)
from lollms_kernel.testing import make_binding
from lollms_kernel.testing.fakes import Fault, dropped, garbage, refusal, silence, slow, stalled
from lollms_kernel.testing.fakes.gemini import FakeGemini, refused, stream_error
from lollms_kernel.types import Chunk

Ask = Callable[..., Awaitable[list[Chunk]]]
Opened = Callable[..., Awaitable[GeminiBinding]]
STREAM = ":streamGenerateContent"
SECRET = "AIza-very-secret"
DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"


@pytest.mark.parametrize(
    ("fault", "kind", "cure"),
    [
        (
            refused(400, "API key not valid.", reason="API_KEY_INVALID"),
            BindingUnavailable,
            "`google_api_key`",
        ),
        (refused(400, "API key expired. Please renew the API key."), BindingUnavailable, "`google_api_key`"),
        (refused(401, "no credentials"), BindingUnavailable, "`google_api_key`"),
        (refused(403, "unregistered callers"), BindingUnavailable, "`google_api_key`"),
        (refused(404, "models/x is not found for API version v1beta"), ModelNotFound, "listing"),
        (
            refused(400, "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
            ContextOverflow,
            "larger context",
        ),
        (refused(400, "Request payload size exceeds the limit: 20971520 bytes."), PayloadTooLarge, "20 MB"),
        (refused(413, "Entity of 21 MB"), PayloadTooLarge, "smaller"),
        (
            refused(400, "Developer instruction is not enabled for models/x"),
            UnsupportedInput,
            "first message",
        ),
        (refused(400, "Function calling is not enabled for models/x"), UnsupportedInput, "`functions`"),
        (refused(400, "JSON mode is not enabled for models/x"), UnsupportedInput, "schema"),
        (refused(400, "Thinking is not enabled for this model"), InvalidRequest, "`think`"),
        (refused(400, "Image input modality is not enabled for models/x"), UnsupportedInput, "format"),
        (refused(400, "Unsupported MIME type: image/svg+xml"), UnsupportedInput, "format"),
        (refused(400, "The requested combination of response modalities (TEXT)"), NotSupported, "model"),
        (refused(400, "User location is not supported for the API use."), BindingUnavailable, "countries"),
        (refused(400, "Imagen API is only accessible to billed users"), BindingUnavailable, "billing"),
        (refused(400, "something new"), InvalidRequest, "suit"),
        (refused(429, "Resource has been exhausted", quota=MINUTE), Unavailable, "later"),
        (refused(429, "You exceeded your current quota", quota=DAY), BindingUnavailable, "billing"),
        (refused(429, "Quota exceeded for metric x, limit: 0"), BindingUnavailable, "billing"),
        (refused(500, "An internal error has occurred."), Unavailable, "later"),
        (refused(503, "The model is overloaded."), Unavailable, "later"),
        (refused(504, "Deadline expired"), Unavailable, "later"),
        (refusal(502, b"<html>Bad gateway</html>"), Unavailable, "later"),
        (refusal(400, b"[1, 2"), InvalidRequest, "suit"),
        (refusal(400, b'{"error": 5}'), InvalidRequest, "suit"),
        (refusal(400, b'[{"error": {"details": [5, {"violations": 7}]}}]'), InvalidRequest, "suit"),
        (refusal(301, location="https://elsewhere.example/"), BindingUnavailable, "`base_url`"),
    ],
)
async def test_refusals(
    opened: Opened, ask: Ask, fake: FakeGemini, fault: Fault, kind: type[LollmsError], cure: str
) -> None:
    binding = await opened(max_retries=0)
    fake.faults.append(msgspec.structs.replace(fault, path=STREAM))

    with pytest.raises(LollmsError) as raised:
        await ask(binding)

    assert type(raised.value) is kind
    assert cure in str(raised.value.hint)
    assert fake.url not in raised.value.detail
    wrote = (
        msgspec.json.decode(fault.body)["error"]["message"]
        if fault.body.startswith(b'{"error":{')
        else "<html>"
    )
    assert wrote not in raised.value.detail


async def test_an_endless_error_is_not_read_to_its_end(opened: Opened, ask: Ask, fake: FakeGemini) -> None:
    binding = await opened(max_retries=0)
    fake.faults.append(refusal(500, b"x" * 10_000_000, STREAM))

    with pytest.raises(Unavailable):
        await ask(binding)


async def test_a_refusal_that_passes_is_tried_again_and_the_client_notices_nothing(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, text_of: Callable[[list[Chunk]], str]
) -> None:
    fake.faults += [refused(503, "overloaded", STREAM), refused(429, "slow down", STREAM, retry_delay="0.5s")]

    assert text_of(await ask(binding, "hello")) == "hello"
    assert len(fake.requests_to(STREAM)) == 3


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (refused(429, "slow down", STREAM, retry_delay="34.5s"), 34.5),
        (refused(429, "slow down", STREAM, retry_after="7"), 7),
        (refused(429, "slow down", STREAM, retry_delay="soon"), None),
    ],
)
async def test_how_long_to_wait_reaches_the_client(
    opened: Opened, ask: Ask, fake: FakeGemini, fault: Fault, seconds: float | None
) -> None:
    fake.faults.append(fault)

    with pytest.raises(Unavailable) as raised:
        await ask(await opened(max_retries=0))
    assert raised.value.retry_after == seconds


async def test_an_error_in_the_middle_is_not_tried_again(
    binding: GeminiBinding, fake: FakeGemini, ask: Ask
) -> None:
    fake.faults.append(stream_error(2, 503, f"overloaded {SECRET}"))

    with pytest.raises(Unavailable, match="503") as raised:
        await ask(binding, "one two three four")

    assert SECRET not in raised.value.detail
    assert len(fake.requests_to(STREAM)) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (dropped(2, STREAM), Unavailable, "broke"),
        (garbage(2, b"", STREAM), Unavailable, "broke"),  # a clean end without the last event
        (garbage(2, b"data: {not json\r\n\r\n", STREAM), GenerationFailed, "cannot be read"),
        (
            garbage(2, b"data: [1, 2]\r\n\r\n", STREAM),
            Unavailable,
            "broke",
        ),  # the library takes it for an empty one
        (garbage(2, b'data: {"candidates": 5}\r\n\r\n', STREAM), GenerationFailed, "cannot be read"),
        (garbage(2, b'data: {"candidates": [{"con', STREAM), GenerationFailed, "cannot be read"),
        (garbage(2, b"<html>\r\n\r\n", STREAM), GenerationFailed, "cannot be read"),
    ],
)
async def test_broken_streams(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, fault: Fault, kind: type[LollmsError], message: str
) -> None:
    fake.faults.append(fault)

    with pytest.raises(kind, match=message):
        await ask(binding, "one two three four")
    assert len(fake.requests_to(STREAM)) == 1


async def test_characters_cut_by_the_network_arrive_whole(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, text_of: Callable[[list[Chunk]], str]
) -> None:
    fake.faults.append(Fault(path=STREAM, piece=1))

    assert text_of(await ask(binding, "Ä €uro 🦙 lama \u2028 end")) == "Ä €uro 🦙 lama \u2028 end"


async def test_half_a_character_becomes_the_replacement_character(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, text_of: Callable[[list[Chunk]], str]
) -> None:
    half = b'data: {"candidates": [{"content": {"parts": [{"text": " caf\xc3"}]}}]}\r\n\r\n'
    fake.faults.append(garbage(1, half, STREAM, ending="go on"))

    assert text_of(await ask(binding, "one two")) == "one caf� two"


async def test_a_slow_first_token_is_waited_for(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, text_of: Callable[[list[Chunk]], str]
) -> None:
    fake.faults.append(slow(0.3, STREAM))

    assert text_of(await ask(binding, "hello")) == "hello"


async def test_silence_before_the_first_token_ends_at_the_limit_and_closes_the_connection(
    opened: Opened, ask: Ask, fake: FakeGemini
) -> None:
    binding = await opened(first_token_timeout=0.5)
    fake.faults.append(silence(STREAM))

    with pytest.raises(Unavailable, match="did not begin to answer"):
        await ask(binding)
    (request,) = fake.requests_to(STREAM)
    await fake.until(request.left)


async def test_silence_in_the_middle_ends_at_the_idle_limit(
    opened: Opened, ask: Ask, fake: FakeGemini
) -> None:
    binding = await opened(idle_timeout=0.2)
    fake.faults.append(stalled(1, STREAM))

    with pytest.raises(Unavailable, match="in the middle"):
        await ask(binding, "one two")
    await fake.until(fake.requests_to(STREAM)[0].left)


async def test_nobody_there() -> None:
    binding = make_binding(GeminiBinding, {"base_url": "http://127.0.0.1:9"})
    await binding.open()
    with pytest.raises(BindingUnavailable, match="cannot be reached") as raised:
        await binding.list_models()
    await binding.close()

    assert "`base_url`" in str(raised.value.hint)
    assert "127.0.0.1" not in raised.value.detail


async def test_a_connection_that_does_not_come_about_ends_at_its_limit() -> None:
    """Somebody listens and never takes anybody in: further requests to connect get no answer at all."""
    with socket.socket() as deaf, ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            caller = waiting.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        binding = make_binding(GeminiBinding, {"base_url": url, "connect_timeout": 0.3, "max_retries": 0})
        await binding.open()
        async with asyncio.timeout(20):
            with pytest.raises(BindingUnavailable, match="cannot be reached"):
                await binding.list_models()
        await binding.close()


async def test_the_fake_refuses_what_the_real_service_refuses(
    opened: Opened, ask: Ask, fake: FakeGemini
) -> None:
    """The limits come from somewhere else here, so the service sees what it would never see else."""
    binding = await opened()
    with pytest.raises(ContextOverflow):
        await ask(binding, "word " * 20, model="gemini-tiny")
    with pytest.raises(UnsupportedInput, match="cannot call functions"):
        await ask(binding, model="gemma-3-27b-it", functions=({"name": "f"},))


# --- keys and the environment -------------------------------------------------------------------------------------


async def test_the_key_is_sent_as_a_header_and_nowhere_shown(
    opened: Opened, ask: Ask, fake: FakeGemini, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    fake.api_key = SECRET
    binding = await opened(google_api_key=SECRET)
    await ask(binding)
    assert fake.received[-1].headers["x-goog-api-key"] == SECRET
    assert all(SECRET not in f"{request.path}{request.query}" for request in fake.received)

    fake.api_key = "another"
    with pytest.raises(BindingUnavailable, match="refused the key") as raised:
        await ask(binding)

    assert SECRET not in raised.value.detail + str(await binding.list_models())
    assert SECRET not in caplog.text


async def test_the_environment_changes_neither_key_nor_address_nor_service(
    opened: Opened, ask: Ask, fake: FakeGemini, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", SECRET)
    monkeypatch.setenv("GEMINI_API_KEY", SECRET)
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", "v7")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "somebody")

    await ask(await opened(google_api_key=None))

    assert SECRET not in str([request.headers for request in fake.received])
    assert fake.received[-1].path == "/v1beta/models/gemini-2.5-flash:streamGenerateContent"


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    opened: Opened, ask: Ask, fake: FakeGemini, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    await ask(await opened())

    assert len(fake.requests_to(STREAM)) == 1


async def test_a_proxy_of_the_environment_is_used_for_other_machines(
    fake: FakeGemini, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake stands in for a proxy: it gets the whole address of a gateway that does not exist."""
    monkeypatch.setenv("HTTP_PROXY", fake.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    settings: dict[str, Any] = {"base_url": "http://gateway.example:8080", "google_api_key": "k"}
    binding = make_binding(GeminiBinding, settings)
    await binding.open()
    await binding.list_models()
    await binding.close()

    assert fake.received[0].headers["host"] == "gateway.example:8080"
