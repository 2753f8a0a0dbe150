"""OpenAI's library in, somebody else's protocol out: the API serves bindings that know nothing of it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from lollms_kernel.dummy import short_wav, small_png
from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.fakes.ollama import FakeOllama, OllamaAnswer
from lollms_kernel.testing.fakes.openai import FakeOpenAI

from .conftest import LIMIT

TOOL: Any = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama() as fake:
        yield fake


@pytest.fixture(scope="module")
def service() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


@pytest.fixture(scope="module")
def sdk(ollama: FakeOllama, service: FakeOpenAI) -> Iterator[openai.OpenAI]:
    remote = {"base_url": service.base_url, "api_key": "k"}
    instances = {
        "llamas": {"type": "ollama_binding", "host": ollama.url, "default_model": "llama3.2"},
        "cloud": {"type": "openai_binding", **remote},
        "voice": {"type": "openai_binding", "default_model": "tts-1", **remote},
        "ears": {"type": "openai_binding", "default_model": "whisper-1", **remote},
        "pictures": {"type": "dalle_binding", "default_model": "gpt-image-2.5-flare", **remote},
    }
    defaults = {
        "ttt_binding": "llamas",
        "tti_binding": "pictures",
        "tts_binding": "voice",
        "stt_binding": "ears",
    }
    with (
        ServerProcess({"defaults": defaults}, instances) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", timeout=LIMIT, max_retries=0) as client,
    ):
        yield client


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_ollamas_models_chat_with_parameters_and_schemas(sdk: openai.OpenAI, ollama: FakeOllama) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = sdk.chat.completions.create(
        model="llamas",
        messages=user("Good morning"),
        temperature=0.5,
        max_tokens=50,
        seed=3,
        response_format=wanted,
    )
    sent = ollama.requests_to("/api/chat")[-1].json
    stream = sdk.chat.completions.create(
        model="qwen3:4b", messages=user("one two"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)

    assert (answer.model, answer.choices[0].message.content) == (
        "llama3.2:latest",
        "Good morning",
    )
    assert {name: sent["options"][name] for name in ("temperature", "num_predict", "seed")} == {
        "temperature": 0.5,
        "num_predict": 50,
        "seed": 3,
    }
    assert sent["format"] == schema
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 2
    assert chunks[0].model == "qwen3:4b"


def test_tools_go_to_ollama_and_come_back_in_openais_shape(sdk: openai.OpenAI, ollama: FakeOllama) -> None:
    before = ollama.answer
    ollama.answer = lambda _: OllamaAnswer(tool_calls=({"name": "add", "arguments": {"a": 1}},))
    try:
        asked = sdk.chat.completions.create(model="llamas", messages=user("add"), tools=[TOOL])
    finally:
        ollama.answer = before
    message = asked.choices[0].message
    calls: list[Any] = list(message.tool_calls or [])
    turns = [
        *user("add"),
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": calls[0].id, "content": "2"},
        *user("thanks"),
    ]
    sdk.chat.completions.create(model="llamas", messages=turns, tools=[TOOL])
    sent = ollama.requests_to("/api/chat")[-1].json

    assert asked.choices[0].finish_reason == "tool_calls"
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("add", {"a": 1})
    ]
    assert sent["tools"][0]["function"]["name"] == "add"
    assert sent["messages"][1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert (sent["messages"][2]["role"], sent["messages"][2]["content"]) == ("tool", "2")


def test_vectors_of_services_are_normalised_and_cut(sdk: openai.OpenAI) -> None:
    whole = sdk.embeddings.create(model="llamas/all-minilm:latest", input=["one", "two words"])
    cut = sdk.embeddings.create(model="all-minilm:latest", input="one", dimensions=2)

    assert [item.index for item in whole.data] == [0, 1]
    for item in (*whole.data, *cut.data):
        assert math.sqrt(sum(value * value for value in item.embedding)) == pytest.approx(1, abs=1e-5)
    assert len(cut.data[0].embedding) == 2
    with pytest.raises(openai.APIStatusError) as refused:
        sdk.embeddings.create(model="all-minilm:latest", input=[[1, 2]])
    assert refused.value.status_code == 501


def test_what_has_no_effect_there_is_said(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model="llamas", messages=user("hi"), extra_body={"mirostat": 1, "dry_base": 2.0}
    )
    assert any("dry_base" in notice["message"] for notice in (answer.model_extra or {})["notices"])


def test_images_speech_and_transcripts_of_a_service(sdk: openai.OpenAI, service: FakeOpenAI) -> None:
    made = sdk.images.generate(prompt="a cat", n=2, size="1024x1024")
    edited = sdk.images.edit(prompt="a hat", image=("c.png", small_png(1)), mask=("m.png", small_png(2)))
    spoken = sdk.audio.speech.create(model="voice", voice="nova", input="hello", response_format="wav")
    heard = sdk.audio.transcriptions.create(model="ears", file=("a.wav", short_wav()), language="en")

    assert made.data is not None and edited.data is not None
    assert all(base64.b64decode(image.b64_json or "").startswith(b"\x89PNG") for image in made.data)
    assert len(made.data) == 2
    assert service.requests_to("/v1/images/generations")[-1].json["size"] == "1024x1024"
    assert len(service.requests_to("/v1/images/edits")) == 1
    assert base64.b64decode(edited.data[0].b64_json or "").startswith(b"\x89PNG")
    assert spoken.content.startswith(b"RIFF")
    assert service.requests_to("/v1/audio/speech")[-1].json["voice"] == "nova"
    assert heard.text == service.transcript


def test_every_service_is_listed_and_one_that_lists_nothing_hides_none(sdk: openai.OpenAI) -> None:
    names = {model.id for model in sdk.models.list()}
    assert {"llama3.2:latest", "qwen3:4b"} & names
    assert any(name.endswith("gpt-4o-mini") for name in names)
