"""What goes wrong at a service, and what becomes of it here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from lollms_binding_openai import OpenAIBinding
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
)
from lollms_kernel.testing.fakes import Fault, dropped, garbage, refusal, silence, stalled
from lollms_kernel.testing.fakes.openai import FakeOpenAI, refused, sse, stream_error
from lollms_kernel.types import Chunk, GenerateRequest, Message, TextDelta

Open = Callable[..., Awaitable[Any]]
Ask = Callable[..., Awaitable[list[Chunk]]]
TextOf = Callable[[list[Chunk]], str]

WORDS = "words of the service that nobody should see"


async def failure_of(binding: OpenAIBinding, ask: Ask, **fields: Any) -> LollmsError:
    with pytest.raises(LollmsError) as caught:
        await ask(binding, **fields)
    assert caught.value.hint
    assert WORDS not in caught.value.detail
    return caught.value


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "invalid_api_key", BindingUnavailable),
        (403, None, BindingUnavailable),
        (404, "model_not_found", ModelNotFound),
        (404, None, BindingUnavailable),
        (400, None, InvalidRequest),
        (400, "context_length_exceeded", ContextOverflow),
        (400, "content_policy_violation", InvalidRequest),
        (413, None, PayloadTooLarge),
        (422, None, InvalidRequest),
        (429, None, Unavailable),
        (429, "insufficient_quota", BindingUnavailable),
        (402, None, BindingUnavailable),
        (307, None, BindingUnavailable),
        (500, None, Unavailable),
        (503, None, Unavailable),
    ],
)
async def test_each_refusal_has_its_error(
    status: int, code: str | None, kind: type[LollmsError], fake: FakeOpenAI, open_binding: Open, ask: Ask
) -> None:
    binding = await open_binding(OpenAIBinding, fake, max_retries=0)
    fake.faults.append(refused(status, WORDS, "/chat", code=code))

    error = await failure_of(binding, ask)

    assert type(error) is kind


async def test_what_no_service_can_do_is_not_supported(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    fake.faults.append(refusal(405, b"", "/chat"))

    with pytest.raises(NotSupported):
        await ask(binding)


async def test_the_parameter_that_a_service_refuses_is_named_if_it_is_one_of_ours(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    body = b'{"error": {"message": "%s", "type": "x", "param": "%s", "code": null}}'
    for param in (b"temperature", b"something_else"):
        fake.faults.append(
            refusal(400, body % (WORDS.encode(), param), "/chat", content_type="application/json")
        )

    ours = await failure_of(binding, ask, parameters={"temperature": 1.5})
    other = await failure_of(binding, ask, parameters={"temperature": 1.5})

    assert "'temperature'" in ours.message
    assert "something_else" not in other.detail


@pytest.mark.parametrize(
    "body",
    [
        b'{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","param":null,"code":404}',
        b'{"error":{"message":"model \\"x\\" not found, try pulling it first","type":"api_error"}}',
    ],
)
async def test_other_services_words_for_a_missing_model_are_understood(
    body: bytes, binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    fake.faults.append(refusal(404, body, "/chat", content_type="application/json"))

    assert isinstance(await failure_of(binding, ask, model="x"), ModelNotFound)


@pytest.mark.parametrize(
    "body",
    [
        b'{"object":"error","message":"This model\'s maximum context length is 8 tokens.","code":400}',
        b'{"error":{"code":400,"message":"it exceeds the available context size","type":"exceed_context_size_error"}}',
    ],
)
async def test_other_services_words_for_a_long_prompt_are_understood(
    body: bytes, binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    fake.faults.append(refusal(400, body, "/chat", content_type="application/json"))

    assert isinstance(await failure_of(binding, ask), ContextOverflow)


@pytest.mark.parametrize("status", [400, 404, 429, 500])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[1]",
        b'"text"',
        b"<html>",
        b'{"error": null}',
        b'{"error": {"message": 3, "param": ["x"], "code": {}, "type": []}}',
        b'{"error": "text"}',
    ],
)
async def test_no_body_of_a_refusal_is_too_strange(
    status: int, body: bytes, fake: FakeOpenAI, open_binding: Open, ask: Ask
) -> None:
    binding = await open_binding(OpenAIBinding, fake, max_retries=0)
    fake.faults.append(refusal(status, body, "/chat", content_type="application/json"))

    await failure_of(binding, ask)


@pytest.mark.parametrize(
    "event",
    [
        b'{"error": {"message": 3, "code": {}, "type": []}}',
        b'{"error": "text"}',
        b'{"error": [1]}',
        b'{"choices": 3}',
    ],
)
async def test_no_event_is_too_strange(event: bytes, fake: FakeOpenAI, open_binding: Open, ask: Ask) -> None:
    binding = await open_binding(OpenAIBinding, fake, max_retries=0)
    fake.faults.append(garbage(3, b"data: " + event + b"\n\n", "/chat"))

    await failure_of(binding, ask, prompt="one two three four")


async def test_no_redirect_is_followed(binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI) -> None:
    fake.faults.append(refusal(307, b"", "/chat", location=f"{fake.url}/v1/elsewhere"))

    assert "base_url" in str((await failure_of(binding, ask)).hint)
    assert fake.requests_to("/elsewhere") == []


# --- retries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [refused(429, WORDS, "/chat", retry_after="1"), refused(503, WORDS, "/chat"), dropped(0, "/chat")],
)
async def test_what_passes_is_tried_again_before_the_answer_has_begun(
    fault: Fault, binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI, text_of: TextOf
) -> None:
    fake.faults += [fault, fault]

    assert text_of(await ask(binding)) == "Hello there"
    assert len(fake.requests_to("/chat")) == 3


async def test_the_pause_that_a_service_asks_for_is_kept_or_told(
    fake: FakeOpenAI, open_binding: Open, ask: Ask
) -> None:
    paused: list[float] = []

    async def note(seconds: float) -> None:
        paused.append(seconds)

    binding = await open_binding(OpenAIBinding, fake, max_retries=1)
    binding.pauses = type(binding.pauses)(sleep=note, jitter=lambda: 0.0)
    fake.faults.append(refused(429, WORDS, "/chat", retry_after="7"))
    await ask(binding)
    assert 7 <= paused[0] < 8

    fake.faults.append(refused(429, WORDS, "/chat", retry_after="3600"))
    assert (await failure_of(binding, ask)).retry_after == 3600
    assert len(paused) == 1


async def test_what_does_not_pass_is_not_tried_again(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    fake.faults.append(refused(400, WORDS, "/chat"))

    await failure_of(binding, ask)

    assert len(fake.requests_to("/chat")) == 1


# --- in the middle of an answer -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (stream_error(3, WORDS), Unavailable),
        (stream_error(3, WORDS, code="content_filter"), InvalidRequest),
        (stream_error(3, WORDS, code="429"), Unavailable),
        (dropped(3), Unavailable),
        (garbage(3, b"data: {broken\n\n"), GenerationFailed),
        (garbage(3, b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'), GenerationFailed),
        (garbage(3, b'data: {"choices":[{"delta":{"content":"\xe6\xbc"}}]}\n\n'), GenerationFailed),
    ],
)
async def test_text_so_far_comes_and_then_the_error(
    fault: Fault, kind: type[LollmsError], binding: OpenAIBinding, fake: FakeOpenAI
) -> None:
    fake.faults.append(fault_at(fault, "/chat"))
    request = GenerateRequest(id="1", model="gpt-4o-mini", messages=(Message("user", "one two three four"),))
    told = ""

    with pytest.raises(kind) as caught:
        async with aclosing(binding.generate(request)) as chunks:
            async for chunk in chunks:
                told += chunk.text if isinstance(chunk, TextDelta) else ""

    assert told == "one two"
    assert WORDS not in caught.value.detail
    assert len(fake.requests_to("/chat")) == 1


def fault_at(fault: Fault, path: str) -> Fault:
    """The same fault for requests to a path only."""
    return msgspec.structs.replace(fault, path=path)


async def test_a_service_that_says_nothing_at_all_is_an_error(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    fake.faults.append(garbage(0, sse({"choices": []}), "/chat"))
    assert isinstance(await failure_of(binding, ask), GenerationFailed)

    page = Fault(
        status=200, headers={"content-type": "text/html"}, body=b"<html>Welcome</html>", path="/chat"
    )
    fake.faults.append(page)
    assert isinstance(await failure_of(binding, ask), GenerationFailed)


# --- time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [silence("/chat"), stalled(0, "/chat"), stalled(1, "/chat")])
async def test_a_service_that_does_not_begin_is_left_after_the_limit(
    fault: Fault, fake: FakeOpenAI, open_binding: Open, ask: Ask
) -> None:
    binding = await open_binding(OpenAIBinding, fake, first_token_timeout=0.3)
    await binding.list_models()
    fake.faults.append(fault)

    error = await failure_of(binding, ask)

    assert "first_token_timeout" in str(error.hint)
    request = fake.requests_to("/chat")[-1]
    await fake.until(request.left)
    assert len(fake.requests_to("/chat")) == 1


async def test_a_service_that_stops_in_the_middle_is_left_after_the_limit(
    fake: FakeOpenAI, open_binding: Open, ask: Ask
) -> None:
    binding = await open_binding(OpenAIBinding, fake, idle_timeout=0.3)
    fake.faults.append(stalled(3, "/chat"))

    assert "idle_timeout" in str((await failure_of(binding, ask, prompt="one two three four")).hint)
    await fake.until(fake.requests_to("/chat")[-1].left)


async def test_an_answer_may_take_longer_than_the_limits_as_long_as_it_flows(
    fake: FakeOpenAI, open_binding: Open, ask: Ask, text_of: TextOf
) -> None:
    binding = await open_binding(OpenAIBinding, fake, first_token_timeout=5, idle_timeout=0.5)
    fake.frame_delay = 0.05

    assert text_of(await ask(binding, "w " * 20)) == "w " * 20
