"""The whole way down to llama.cpp with the embedded model: what only a real engine can show."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.server_process import free_port

from .conftest import LIMIT
from .test_native import GIVEN, events_of

GUIDE = (
    Path(__file__).parents[3]
    / "plugins/lollms-binding-llamacpp/src/lollms_binding_llamacpp/models/lollms-guide.gguf"
)
USER: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("engine")
    port = free_port()
    wingman = {"inference_port": port, "control_port": free_port(), "home": str(folder / "home")}
    local = {
        "type": "llamacpp_binding",
        "model_path": str(GUIDE),
        "n_ctx": 512,
        "parallel": 2,
        "embeddings": True,
        "pooling": "mean",
        "slot_save_path": str(folder),
    }
    config = {"defaults": {"ttt_binding": "local"}, "transports": {"wingman": wingman}}
    with ServerProcess(config, {"local": local}, extra_ports=True):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def engine(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=LIMIT) as client:
        yield client


@pytest.fixture
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="-", timeout=LIMIT, max_retries=0) as client:
        yield client


def completion(engine: httpx.Client, prompt: Any, **fields: Any) -> dict[str, Any]:
    response = engine.post("/completion", json={"prompt": prompt, **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_chat_is_the_same_whole_and_streamed_and_the_second_prompt_comes_from_the_cache(
    sdk: openai.OpenAI,
) -> None:
    def ask() -> Any:
        return sdk.chat.completions.create(model="any", messages=USER, temperature=0, max_tokens=16)

    first, again = ask(), ask()
    stream = sdk.chat.completions.create(
        model="any", messages=USER, temperature=0, max_tokens=16, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert first.choices[0].message.content == again.choices[0].message.content == text != ""
    assert first.choices[0].finish_reason == "length"
    assert first.usage.completion_tokens == 16
    assert again.usage.prompt_tokens_details.cached_tokens == first.usage.prompt_tokens - 1
    assert again.timings["prompt_n"] == 1


def test_schemas_grammars_and_tools_are_kept_to(sdk: openai.OpenAI, engine: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    answer = sdk.chat.completions.create(
        model="any", messages=USER, temperature=0, max_tokens=60, response_format=wanted
    )
    assert json.loads(answer.choices[0].message.content or "")["a"] in ("x", "y")
    assert completion(engine, "x", grammar='root ::= "yes" | "no"')["content"] in ("yes", "no")
    for tampered in (
        {"grammar": "root ::= ("},
        {"json_schema": {"type": "nonsense"}},
        {"json_schema": {"type": "string", "minLength": 10**9}},
    ):
        refused = engine.post("/completion", json={"prompt": "x", **tampered})
        assert refused.status_code == 400, refused.text
    tool: Any = {
        "type": "function",
        "function": {
            "name": "switch",
            "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
        },
    }
    called = sdk.chat.completions.create(
        model="any", messages=USER, temperature=0, max_tokens=200, tools=[tool], tool_choice="required"
    )
    calls: list[Any] = list(called.choices[0].message.tool_calls or [])
    [call] = calls
    assert called.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "switch"
    assert isinstance(json.loads(call.function.arguments)["on"], bool)


def test_a_prompt_that_is_too_long_says_exactly_by_how_much(engine: httpx.Client) -> None:
    prompt = "Hello there, " * 400
    count = len(engine.post("/tokenize", json={"content": prompt, "add_special": True}).json()["tokens"])
    for body in ({"prompt": prompt}, {"prompt": prompt, "stream": True}):
        response = engine.post("/completion", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["n_ctx"]) == (
            400,
            "exceed_context_size_error",
            512,
        )
        assert abs(error["n_prompt_tokens"] - count) <= 1


def test_the_engine_echoes_every_sampling_field(engine: httpx.Client) -> None:
    left_out = ("grammar", "grammar_lazy", "grammar_triggers", "preserved_tokens", "lora")
    given = {name: value for name, value in GIVEN.items() if name not in left_out}
    shown = completion(engine, "Hello", **given)["generation_settings"]
    default = completion(engine, "Hello", n_predict=1)["generation_settings"]

    assert {name: shown[name] for name in given} == {
        name: pytest.approx(value) if isinstance(value, float) else value for name, value in given.items()
    }
    assert set(GIVEN) <= default.keys()


def test_edges_of_the_native_endpoint(engine: httpx.Client) -> None:
    assert completion(engine, "Hello", n_predict=0, temperature=0)["tokens_predicted"] == 1
    assert completion(engine, "", n_predict=3)["tokens_predicted"] >= 1
    full = completion(engine, "Hello", n_predict=8, temperature=0, ignore_eos=True)["content"]
    stop = full[3:6]
    stopped = completion(engine, "Hello", n_predict=8, temperature=0, ignore_eos=True, stop=[stop])
    assert (stopped["stop_type"], stopped["stopping_word"]) == ("word", stop)
    assert stopped["content"] == full[: full.index(stop)]
    ids = engine.post("/tokenize", json={"content": "Hello"}).json()["tokens"]
    assert (
        completion(engine, ids, n_predict=4, temperature=0)["content"]
        == completion(engine, "Hello", n_predict=4, temperature=0)["content"]
    )
    seeded = [completion(engine, "Hello", n_predict=8, seed=9, temperature=2.0)["content"] for _ in range(2)]
    assert seeded[0] == seeded[1]
    pieces = events_of(
        engine.post("/completion", json={"prompt": "Hello", "n_predict": 4, "n_probs": 2, "stream": True})
    )
    entries = [entry for piece in pieces for entry in piece.get("completion_probabilities", ())]
    assert "".join(entry["token"] for entry in entries) == "".join(piece["content"] for piece in pieces)
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] <= 0 for entry in entries)


def test_pieces_of_tokens_are_bytes_where_they_are_no_text(engine: httpx.Client) -> None:
    told = engine.post("/tokenize", json={"content": "ö€", "with_pieces": True}).json()["tokens"]
    whole = b"".join(
        piece.encode() if isinstance(piece, str) else bytes(piece)
        for piece in (entry["piece"] for entry in told)
    )
    assert whole.decode() == "ö€"


def test_vectors_are_normalised_and_the_same_in_either_format(
    sdk: openai.OpenAI, engine: httpx.Client
) -> None:
    texts = [
        "Hello",
        "How do I stop the server?",
    ]  # the same in both: company changes the last digits on some CPUs
    coded = sdk.embeddings.create(model="any", input=texts)
    plain = engine.post("/v1/embeddings", json={"input": texts}).json()["data"][0]["embedding"]
    assert coded.data[0].embedding == pytest.approx(plain, abs=1e-5)
    assert math.sqrt(sum(value * value for value in plain)) == pytest.approx(1, abs=1e-4)
    assert coded.data[0].embedding != pytest.approx(coded.data[1].embedding, abs=1e-2)


def test_slots_are_saved_and_restored(engine: httpx.Client) -> None:
    answer = completion(engine, "How do I stop the server?", n_predict=4, temperature=0, id_slot=0)
    saved = engine.post("/slots/0?action=save", json={"filename": "slot.bin"}).json()
    restored = engine.post("/slots/1?action=restore", json={"filename": "slot.bin"}).json()
    assert saved["n_saved"] == restored["n_restored"] == answer["tokens_evaluated"] + 3
    assert saved["n_written"] == restored["n_read"] > 0
    assert engine.post("/slots/1?action=erase").json() == {"id_slot": 1, "n_erased": saved["n_saved"]}
    for action, name in (("restore", "no-such.bin"), ("save", "../slot.bin")):
        assert engine.post(f"/slots/0?action={action}", json={"filename": name}).status_code == 400
    assert engine.post("/slots/7?action=erase").status_code == 400


def test_a_client_that_goes_away_frees_its_slot(engine: httpx.Client) -> None:
    body = {"prompt": "Hello", "n_predict": -1, "ignore_eos": True, "stream": True}
    with engine.stream("POST", "/completion", json=body) as response:
        pieces = response.iter_raw()
        next(pieces)
    deadline = time.monotonic() + LIMIT
    while any(slot["is_processing"] for slot in engine.get("/slots").json()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert engine.get("/health").json()["slots_idle"] == 2


def test_figures_and_properties_are_those_of_the_engine(engine: httpx.Client) -> None:
    def predicted() -> float:
        families = text_string_to_metric_families(engine.get("/metrics").text)
        return next(
            family.samples[0].value for family in families if family.name == "llamacpp:tokens_predicted"
        )

    before = predicted()
    completion(engine, "Hello", n_predict=5, ignore_eos=True)
    told = engine.get("/props").json()
    [model] = engine.get("/v1/models").json()["data"]

    assert predicted() == before + 5
    assert (told["total_slots"], told["default_generation_settings"]["n_ctx"]) == (2, 512)
    assert "<|im_start|>" in told["chat_template"]
    assert model["meta"]["n_vocab"] == 2048
    prompt = engine.post("/apply-template", json={"messages": USER}).json()["prompt"]
    assert prompt == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
