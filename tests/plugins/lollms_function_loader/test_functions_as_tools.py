"""Functions of the server as tools of real bindings: a model calls, the server answers, the model says it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.fakes.gemini import FakeGemini
from lollms_kernel.testing.fakes.gemini_answers import GeminiAnswer
from lollms_kernel.testing.fakes.ollama import FakeOllama, OllamaAnswer
from lollms_kernel.testing.fakes.openai import FakeOpenAI, OpenAIAnswer

EXPRESSION = {"expression": "round(2349 * 17.5 / 100, 2)"}


def ask(server: ServerProcess, **more: Any) -> Any:
    inputs = [{"type": "text", "role": "user_prompt", "data": "What is 17.5 % of 2349?"}]
    answer = httpx.post(f"{server.url}/api/v1/generate", json={"input_data": inputs, **more}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def openai_answer(body: dict[str, Any]) -> OpenAIAnswer:
    """Calls the calculator first, then says what came back."""
    results = [turn for turn in body["messages"] if turn["role"] == "tool"]
    if results:
        return OpenAIAnswer(content=f"It is {results[-1]['content']}.")
    call = {"id": "c1", "name": "calculator_evaluate", "arguments": json.dumps(EXPRESSION)}
    return OpenAIAnswer(tool_calls=(call,))


def ollama_answer(body: dict[str, Any]) -> OllamaAnswer:
    results = [turn for turn in body["messages"] if turn["role"] == "tool"]
    if results:
        return OllamaAnswer(content=f"It is {results[-1]['content']} by {results[-1]['tool_name']}.")
    return OllamaAnswer(tool_calls=({"name": "calculator_evaluate", "arguments": EXPRESSION},))


def gemini_answer(body: dict[str, Any]) -> GeminiAnswer:
    parts = [part for content in body["contents"] for part in content["parts"]]
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    if results:
        return GeminiAnswer(text=f"It is {results[-1]['response']['output']} by {results[-1]['name']}.")
    return GeminiAnswer(calls=({"name": "calculator_evaluate", "args": EXPRESSION},))


class Fakes(NamedTuple):
    openai: FakeOpenAI
    ollama: FakeOllama
    gemini: FakeGemini


@pytest.fixture(scope="module")
def fakes() -> Iterator[Fakes]:
    with (
        FakeOpenAI(answer=openai_answer) as openai,
        FakeOllama(answer=ollama_answer) as ollama,
        FakeGemini(answer=gemini_answer) as gemini,
    ):
        yield Fakes(openai, ollama, gemini)


@pytest.fixture(scope="module")
def server(fakes: Fakes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    openai = {"type": "openai_binding", "base_url": fakes.openai.base_url, "api_key": "sk-test"}
    gemini = {"type": "gemini_binding", "base_url": fakes.gemini.url, "google_api_key": "AIza-test"}
    instances = {
        "openai": {**openai, "default_model": "gpt-4o-mini"},
        "ollama": {"type": "ollama_binding", "host": fakes.ollama.url, "default_model": "llama3.2:latest"},
        "gemini": {**gemini, "default_model": "gemini-2.5-flash"},
        "plain": {"type": "dummy_binding"},
    }
    config = {
        "defaults": {"ttt_binding": "openai"},
        "functions_config": {"clock.now": {"enabled": False}},
    }
    with ServerProcess(config, instances, root=tmp_path_factory.mktemp("tools")) as running:
        yield running


ANSWERS = {
    "openai": "It is 411.07.",
    "ollama": "It is 411.07 by calculator_evaluate.",
    "gemini": "It is 411.07 by calculator_evaluate.",
}


@pytest.mark.parametrize("binding", ANSWERS)
def test_a_model_calls_a_function_that_the_request_names_and_answers_from_it(
    server: ServerProcess, binding: str
) -> None:
    answer = ask(server, binding_name=binding, functions=["calculator.evaluate"]).json()

    (output,) = answer["output"]
    assert output["data"] == ANSWERS[binding]
    assert output["metadata"]["finish_reason"] == "stop"


def test_a_personality_offers_its_functions_and_a_stream_shows_what_is_called(
    server: ServerProcess, fakes: Fakes
) -> None:
    streamed = ask(server, personality="reckoner", stream=True).text
    events = [json.loads(block.removeprefix("data: ")) for block in streamed.split("\n\n") if block]

    assert [event["content"] for event in events if event["type"] == "info"] == [
        {
            "status": "function_call",
            "name": "calculator.evaluate",
            "arguments": json.dumps(EXPRESSION),
        },
        {"status": "function_result", "name": "calculator.evaluate", "result": "411.07"},
    ]
    assert not any(event["type"] == "function_call" for event in events)
    (final,) = events[-1]["content"]
    assert final["data"] == ANSWERS["openai"]
    told = fakes.openai.requests_to("/v1/chat/completions")[-1].json["tools"]
    assert [tool["function"]["name"] for tool in told] == ["calculator_evaluate", "clock_days_between"]
    assert told[0]["function"]["parameters"]["properties"]["expression"]["description"]
    (notice,) = final["metadata"]["notices"]
    assert (notice["code"], "clock.now" in notice["message"]) == ("functions_unknown", True)


def test_calls_of_functions_that_the_client_described_come_to_the_client(server: ServerProcess) -> None:
    own = {"type": "function", "function": {"name": "calculator_evaluate", "parameters": {"type": "object"}}}

    outputs = ask(server, functions=[own]).json()["output"]

    (call,) = outputs[-1]["data"]["tool_calls"]
    assert call["name"] == "calculator_evaluate"


def test_a_model_without_tools_answers_and_the_client_is_told(server: ServerProcess) -> None:
    (output,) = ask(server, binding_name="plain", functions=["calculator.evaluate"]).json()["output"]

    assert output["data"] == "What is 17.5 % of 2349?"
    assert [notice["code"] for notice in output["metadata"]["notices"]] == ["functions_not_supported"]
