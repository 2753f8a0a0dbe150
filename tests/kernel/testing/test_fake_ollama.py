"""The fake Ollama through the vendor's own library, and the faults that all fakes share."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import ollama
import pytest

from lollms_kernel.testing.fakes import Fault, dropped, garbage, refusal, silence, stalled
from lollms_kernel.testing.fakes.ollama import FakeOllama, OllamaAnswer, OllamaModel, refused, stream_error

TURN = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama() as server:
        yield server


@pytest.fixture
def client(fake: FakeOllama) -> Iterator[ollama.Client]:
    with ollama.Client(fake.url, timeout=30) as client:
        yield client


def test_the_library_s_calls_work(fake: FakeOllama, client: ollama.Client) -> None:
    assert client.chat("llama3.2", TURN).message.content == "one two three"
    assert [part.message.content for part in client.chat("llama3.2", TURN, stream=True)] == [
        "one",
        " two",
        " three",
        "",
    ]
    assert client.generate("llama3.2", "once upon").response == "once upon"
    assert len(client.embed("all-minilm", ["a", "b"]).embeddings) == 2
    assert {model.model for model in client.list().models} == set(fake.models)
    assert client.show("llava:7b").capabilities == ["completion", "vision"]
    assert [model.model for model in client.ps().models] == ["llama3.2:latest", "all-minilm:latest"]
    assert client.pull("tiny").status == "success"
    assert [part.status for part in client.pull("tiny", stream=True)][-1] == "success"
    assert client.delete("tiny").status == "success"
    assert "tiny:latest" not in fake.models


def test_loading_and_unloading(fake: FakeOllama, client: ollama.Client) -> None:
    assert client.generate("llama3.2").done_reason == "load"
    assert fake.loaded == {"llama3.2:latest": 4096}
    assert client.generate("llama3.2", keep_alive=0).done_reason == "unload"
    assert client.chat("llama3.2", []).done_reason == "load"
    assert client.chat("llama3.2", [], keep_alive=0).done_reason == "unload"
    assert fake.loaded == {}


def test_thinking_and_functions_also_in_a_whole_answer(fake: FakeOllama, client: ollama.Client) -> None:
    call = {"name": "clock", "arguments": {"zone": "UTC"}}
    fake.answer = lambda _: OllamaAnswer(thinking="hm hm", content="ok", tool_calls=(call,))

    message = client.chat("qwen3:4b", TURN, think=True).message

    assert (message.thinking, message.content) == ("hm hm", "ok")
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.name == "clock"


def test_limits_of_tokens_and_stop_texts_are_kept(client: ollama.Client) -> None:
    cut = client.chat("llama3.2", TURN, options={"num_predict": 2})
    stopped = client.chat("llama3.2", TURN, options={"stop": [" three"]})

    assert (cut.message.content, cut.done_reason, cut.eval_count) == ("one two", "length", 2)
    assert (stopped.message.content, stopped.done_reason) == ("one two", "stop")


@pytest.mark.parametrize(
    ("call", "status", "text"),
    [
        (lambda c: c.chat("nobody", TURN), 404, "model 'nobody' not found"),
        (lambda c: c.show("nobody"), 404, "model 'nobody' not found"),
        (lambda c: c.chat("all-minilm", TURN), 400, "does not support chat"),
        (lambda c: c.generate("all-minilm", "x"), 400, "does not support generate"),
        (
            lambda c: c.chat("llava:7b", TURN, tools=[{"function": {"name": "f"}}]),
            400,
            "does not support tools",
        ),
        (lambda c: c.chat("llama3.2", TURN, think=True), 400, "does not support thinking"),
        (lambda c: c.embed("llama3.2", "x"), 501, "does not support embeddings"),
        (lambda c: list(c.pull("nobody", stream=True)), -1, "file does not exist"),
    ],
)
def test_refusals_are_the_real_server_s(client: ollama.Client, call: object, status: int, text: str) -> None:
    assert callable(call)
    with pytest.raises(ollama.ResponseError, match=text) as raised:
        call(client)
    assert raised.value.status_code == status


def test_the_context_cuts_the_oldest_turns_or_refuses(fake: FakeOllama) -> None:
    fake.models["m:1"] = OllamaModel(name="m:1", parameters={"num_ctx": 10})
    old, new = {"role": "user", "content": "x " * 8}, {"role": "user", "content": "y " * 8}
    body = {"model": "m:1", "messages": [old, new], "stream": False}

    cut = httpx.post(f"{fake.url}/api/chat", json=body).json()
    refused = httpx.post(f"{fake.url}/api/chat", json={**body, "truncate": False})

    assert (cut["prompt_eval_count"], cut["message"]["content"]) == (8, "y y y y y y y y ")
    assert (refused.status_code, refused.json()["error"]) == (
        400,
        "the input length exceeds the context length",
    )


def test_unknown_paths_and_keys(fake: FakeOllama) -> None:
    assert httpx.get(f"{fake.url}/").text == "Ollama is running"
    assert httpx.get(f"{fake.url}/v1/models").text == "404 page not found"
    assert httpx.post(f"{fake.url}/api/chat", content=b"{x").status_code == 400
    fake.api_key = "right"
    assert httpx.get(f"{fake.url}/api/tags").status_code == 401
    assert httpx.get(f"{fake.url}/api/tags", headers={"Authorization": "Bearer right"}).status_code == 200


# --- faults -------------------------------------------------------------------------------------------------


def test_each_fault_is_used_up_by_the_first_request_that_it_is_for(
    fake: FakeOllama, client: ollama.Client
) -> None:
    fake.faults += [refused(500, "boom", "/api/chat"), refusal(429, retry_after="3")]

    assert httpx.get(f"{fake.url}/api/version").headers["retry-after"] == "3"
    with pytest.raises(ollama.ResponseError, match="boom"):
        client.chat("llama3.2", TURN)
    assert client.chat("llama3.2", TURN).done


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (dropped(after=1), httpx.RemoteProtocolError),
        (stream_error(after=1, message="cuda"), ollama.ResponseError),
        (garbage(after=1, insert=b"{no json\n"), ValueError),
    ],
)
def test_streams_break_after_the_frames_that_were_let_through(
    fake: FakeOllama, client: ollama.Client, fault: Fault, error: type[Exception]
) -> None:
    fake.faults.append(fault)
    got = []

    with pytest.raises(error):
        for part in client.chat("llama3.2", TURN, stream=True):
            got.append(part.message.content)
    assert got == ["one"]


@pytest.mark.parametrize("fault", [silence(), stalled(after=1)])
def test_a_client_that_leaves_a_silent_server_is_noticed(fake: FakeOllama, fault: Fault) -> None:
    fake.faults.append(fault)
    with ollama.Client(fake.url, timeout=0.2) as hasty, pytest.raises(httpx.ReadTimeout):
        list(hasty.chat("llama3.2", TURN, stream=True))

    (request,) = fake.received
    assert request.left.wait(30)
    assert request.ended.wait(30)
    assert request.frames == fault.after


def test_answers_cut_anywhere_are_put_together_again(fake: FakeOllama, client: ollama.Client) -> None:
    fake.faults.append(Fault(piece=1))

    parts = client.chat("llama3.2", [{"role": "user", "content": "Ä 🦙"}], stream=True)
    assert "".join(part.message.content or "" for part in parts) == "Ä 🦙"


def test_a_mistake_of_a_fake_fails_the_test_that_uses_it() -> None:
    def broken(_request: object) -> OllamaAnswer:
        raise RuntimeError("mine")

    with pytest.raises(ExceptionGroup, match="mistakes"), FakeOllama(answer=broken) as fake:
        httpx.post(f"{fake.url}/api/chat", json={"model": "llama3.2", "messages": TURN})
