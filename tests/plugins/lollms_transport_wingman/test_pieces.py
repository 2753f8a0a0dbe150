"""The small parts by themselves: forms, subtitles, calls in pieces, figures, names, streams that run together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.errors import GenerationFailed, InvalidRequest, LollmsError, PayloadTooLarge, QueueFull
from lollms_kernel.types import Chunk, Failed, Finished, GenerateRequest, TextDelta, Timings, ToolCall, Usage
from lollms_transport_wingman.active import Active
from lollms_transport_wingman.inference.audio import _subtitles
from lollms_transport_wingman.inference.bodies import MAX_DEPTH, decode_json, read_form
from lollms_transport_wingman.inference.chat import merged_calls
from lollms_transport_wingman.inference.choice import Choice
from lollms_transport_wingman.inference.errors import error_answer, known
from lollms_transport_wingman.inference.fields import Fields
from lollms_transport_wingman.inference.merge import answers
from lollms_transport_wingman.inference.messages import read_messages
from lollms_transport_wingman.inference.places import Places
from lollms_transport_wingman.inference.prometheus import Scrapes
from lollms_transport_wingman.inference.prompts import read_prompts
from lollms_transport_wingman.inference.server import Inference
from lollms_transport_wingman.inference.slots import is_file_name
from lollms_transport_wingman.settings import WingmanSettings


def form(*parts: tuple[str, bytes], boundary: str = "b") -> tuple[bytes, str]:
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def test_a_form_has_fields_and_files() -> None:
    body, kind = form(
        ('name="prompt"', "é".encode()),
        ('name="image[]"; filename="a.png"', b"\x00\xff"),
        ('name="image[]"; filename="b.png"', b"2"),
    )
    found = read_form(body, kind)
    assert found.fields == {"prompt": "é"}
    assert [(upload.name, upload.data) for upload in found.files["image[]"]] == [
        ("a.png", b"\x00\xff"),
        ("b.png", b"2"),
    ]


def test_a_form_with_too_many_parts_or_none_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        read_form(*form(*[(f'name="f{number}"', b"x") for number in range(100)]))
    for body, kind in (
        (b"", "multipart/form-data; boundary=b"),
        (b"x", "application/json"),
        (b"--b\r\n", "multipart/form-data"),
    ):
        with pytest.raises(InvalidRequest):
            read_form(body, kind)


@given(st.integers(1, 400), st.sampled_from([b"[", b'{"a":']))
def test_json_is_as_deep_as_it_is(depth: int, opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    body = opening * depth + b'"\\"[[[{{{"' + closing * depth
    if depth > MAX_DEPTH:
        with pytest.raises(InvalidRequest, match="nested"):
            decode_json(body)
    else:
        decode_json(body)


@given(st.text())
def test_brackets_in_texts_are_no_depth(text: str) -> None:
    import json

    body = json.dumps([text + "[" * 300] * 2).encode()
    assert decode_json(body) == json.loads(body)


def test_subtitles_in_either_format() -> None:
    segments = [{"start": 0, "end": 1.5, "text": " Hello "}, {"start": 3661.25, "end": 3662, "text": "you"}]
    assert _subtitles(segments, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello\n\n2\n01:01:01,250 --> 01:01:02,000\nyou\n"
    )
    assert _subtitles(segments, "vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello\n")


def test_calls_in_pieces_become_whole() -> None:
    pieces = [ToolCall("1", "f", '{"a"', 0), ToolCall("", "", ": 1}", 0), ToolCall("2", "g", "{}", 1)]
    assert merged_calls(pieces) == [ToolCall("1", "f", '{"a": 1}', 0), ToolCall("2", "g", "{}", 1)]
    without_numbers = [ToolCall("1", "f", "{}", 0), ToolCall("2", "g", "{}", 0)]
    assert [call.name for call in merged_calls(without_numbers)] == ["f", "g"]


def test_timings_come_from_the_kernel_where_no_engine_tells_them() -> None:
    choice = Choice(0)
    choice.add(TextDelta("x"))
    choice.add(Finished("stop", Usage(10, 5, 4), Timings(first_chunk=0.5, total=2.5)))
    assert choice.timings() == {
        "cache_n": 4,
        "prompt_n": 6,
        "prompt_ms": 500.0,
        "prompt_per_token_ms": pytest.approx(83.333, abs=0.001),
        "prompt_per_second": 12.0,
        "predicted_n": 5,
        "predicted_ms": 2000.0,
        "predicted_per_token_ms": 500.0,
        "predicted_per_second": 2.0,
    }
    nothing = Choice(0)
    nothing.add(Finished())
    assert all(value == 0 for value in nothing.timings().values())


def test_a_scrape_of_nothing_is_all_zeros() -> None:
    lines = [line for line in Scrapes().text("x", {}).splitlines() if not line.startswith("#")]
    assert len(lines) == 17
    assert all(line.endswith(" 0") for line in lines)


@given(st.text(max_size=40))
def test_a_file_name_leads_nowhere(name: str) -> None:
    if is_file_name(name):
        assert name not in ("", ".", "..")
        assert not set(name) & set('/\\:*?"<>|\0')
        assert name == name.strip(" ")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a", [("a", None)]),
        (["a", "b"], [("a", None), ("b", None)]),
        ([1, 2], [(None, (1, 2))]),
        ([1, "a"], [(None, (1, "a"))]),
        (["a", 1], [(None, ("a", 1))]),
        ([[1], "a", [1, "b"]], [(None, (1,)), ("a", None), (None, (1, "b"))]),
    ],
)
def test_forms_of_prompts(value: Any, found: Any) -> None:
    prompts, _ = read_prompts(value)
    assert [(prompt.text, prompt.parts) for prompt in prompts] == found


def test_instructions_alone_are_what_is_answered() -> None:
    only = read_messages([{"role": "system", "content": "Say hello."}], fetches=False)
    assert (only.system, [turn.content for turn in only.turns]) == (None, ["Say hello."])
    later = read_messages(
        [{"role": role, "content": role} for role in ("system", "user", "system", "user")], fetches=False
    )
    assert (later.system, [turn.role for turn in later.turns]) == ("system", ["user", "system", "user"])


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (None, "'messages' is required"),
        ({}, "Expected 'messages' to be an array"),
        ([], "must not be empty"),
        ([{"role": "user"}], "All non-assistant messages must contain 'content'"),
        ([{"role": "assistant"}], "either 'content' or 'tool_calls'"),
        ([{"role": "king", "content": "x"}], "role"),
        (
            [{"role": "user", "content": "x"}, *[{"role": "assistant", "content": "x"}] * 2],
            "2 or more assistant",
        ),
        ([{"role": "user", "content": [{"type": "video_url"}]}], "unsupported content"),
    ],
)
def test_conversations_that_are_none(messages: Any, words: str) -> None:
    with pytest.raises(LollmsError, match=words):
        read_messages(messages, fetches=False)


def test_an_error_that_nobody_foresaw_tells_nothing_but_its_number(caplog: pytest.LogCaptureFixture) -> None:
    answer = error_answer(known(RuntimeError("the secret")))
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "unexpected error" in caplog.text


def test_numbers_of_fields_are_what_they_say() -> None:
    fields = Fields({"a": 3.0, "b": "3", "c": True, "d": None})
    assert fields.integer("a") == 3
    assert fields.integer("d") is None
    for name in "bc":
        with pytest.raises(InvalidRequest, match=f"Field '{name}'"):
            fields.integer(name)


def test_the_model_that_wingman_started_is_the_one_of_the_inference_port() -> None:
    inference = Inference(None, WingmanSettings(alias="mine", binding="local"))  # type: ignore[arg-type]
    assert inference.alias == "mine"
    inference.active = Active()
    inference.active.instance, inference.active.alias = "started", "a.gguf"
    assert inference.alias == "a.gguf"


def test_where_a_model_is_is_known_for_a_while_to_whoever_asked() -> None:
    now = 0.0
    places = Places(lambda: now)
    places.note("me", "m", "here")
    assert (places.find("me", "m"), places.find("you", "m"), places.find("me", "n")) == ("here", None, None)
    now = 31.0
    assert places.find("me", "m") is None
    for number in range(2000):
        places.note("me", f"m{number}", "here")
    assert (places.find("me", "m0"), places.find("me", "m1999")) == (None, "here")


# --- several answers at once ---


class FakeKernel:
    """Streams what each request's id says: `N` pieces, `fail`, `refuse` or `wait`."""

    def __init__(self) -> None:
        self.running = self.most = 0

    @asynccontextmanager
    async def stream(self, request: GenerateRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if request.id == "refuse":
                raise QueueFull("full")
            yield self._chunks(request.id)
        finally:
            self.running -= 1

    async def _chunks(self, what: str) -> AsyncIterator[Chunk]:
        if what == "wait":
            await asyncio.Event().wait()
        if what == "fail":
            yield TextDelta("x")
            yield Failed("generation_failed", "broken")
            return
        for _ in range(int(what)):
            await asyncio.sleep(0)
            yield TextDelta("x")
        yield Finished()


def requests(*names: str) -> list[GenerateRequest]:
    return [GenerateRequest(id=name) for name in names]


async def test_all_answers_come_with_their_numbers_and_not_too_many_run() -> None:
    kernel = FakeKernel()
    texts = ["", "", "", "", ""]
    async with answers(kernel, requests("3", "200", "1", "0", "7"), at_once=2) as chunks:  # type: ignore[arg-type]
        async for number, chunk in chunks:
            texts[number] += chunk.text if isinstance(chunk, TextDelta) else "."
    assert texts == ["xxx.", "x" * 200 + ".", "x.", ".", "xxxxxxx."]
    assert (kernel.most, kernel.running) == (2, 0)


@pytest.mark.parametrize(("name", "error"), [("fail", GenerationFailed), ("refuse", QueueFull)])
@pytest.mark.parametrize("others", [(), ("wait",), ("5", "wait")])
async def test_the_error_of_one_ends_all(
    name: str, error: type[LollmsError], others: tuple[str, ...]
) -> None:
    kernel = FakeKernel()
    with pytest.raises(error):
        async with answers(kernel, requests(*others, name)) as chunks:  # type: ignore[arg-type]
            async for _ in chunks:
                pass
    assert kernel.running == 0


async def test_leaving_stops_all() -> None:
    kernel = FakeKernel()
    async with asyncio.timeout(10):
        async with answers(kernel, requests("100000", "100000", "wait")) as chunks:  # type: ignore[arg-type]
            await anext(aiter(chunks))
    assert kernel.running == 0
