"""llama-server's own endpoints: shapes, streams, parameters."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

GIVEN: dict[str, Any] = {
    "temperature": 0.7,
    "dynatemp_range": 0.25,
    "dynatemp_exponent": 1.5,
    "top_k": 30,
    "top_p": 0.9,
    "min_p": 0.1,
    "top_n_sigma": 1.5,
    "xtc_probability": 0.2,
    "xtc_threshold": 0.3,
    "typical_p": 0.8,
    "repeat_last_n": 32,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "dry_multiplier": 0.8,
    "dry_base": 2.0,
    "dry_allowed_length": 3,
    "dry_penalty_last_n": 16,
    "dry_sequence_breakers": ["\n", "!"],
    "mirostat": 2,
    "mirostat_tau": 4.0,
    "mirostat_eta": 0.2,
    "adaptive_target": 0.5,
    "adaptive_decay": 0.75,
    "n_keep": 2,
    "n_discard": 3,
    "n_indent": 1,
    "n_cache_reuse": 8,
    "t_max_predict_ms": 5000,
    "min_keep": 1,
    "ignore_eos": True,
    "post_sampling_probs": True,
    "seed": 42,
    "n_predict": 12,
    "n_probs": 2,
    "stop": ["###"],
    "samplers": ["top_k", "temperature"],
    "grammar": 'root ::= "a"',
    "grammar_lazy": True,
    "grammar_triggers": [{"type": 1, "value": "x"}],
    "preserved_tokens": ["<tool>"],
    "lora": [{"id": 0, "scale": 0.5}],
    "timings_per_token": True,
}
"""Every sampling field of llama-server with a value that is not its default."""


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream"
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    assert "[DONE]" not in response.text
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def completion(client: httpx.Client, prompt: Any = "x", **fields: Any) -> dict[str, Any]:
    response = client.post("/completion", json={"prompt": prompt, **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def reached(client: httpx.Client, prompt: Any = "echo", **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(completion(client, prompt, **fields)["content"])
    return found


@pytest.mark.parametrize("path", ["/completion", "/completions"])
def test_an_answer_has_every_key_of_either_flavour(client: httpx.Client, path: str) -> None:
    answer = client.post(path, json={"prompt": "x", "return_tokens": True, "stop": ["END"]}).json()

    assert answer["content"] == "abc"
    assert answer["tokens"] == [97, 98, 99]
    assert {
        key: answer[key] for key in ("index", "id_slot", "stop", "tokens_predicted", "tokens_evaluated")
    } == {
        "index": 0,
        "id_slot": 1,
        "stop": True,
        "tokens_predicted": 2,
        "tokens_evaluated": 7,
    }
    assert (answer["stop_type"], answer["stopping_word"]) == ("word", "END")
    assert [answer[f"stopped_{kind}"] for kind in ("eos", "word", "limit")] == [False, True, False]
    assert answer["prompt"] == "<s> x"
    assert (answer["truncated"], answer["has_new_line"], answer["tokens_cached"]) == (False, False, 8)
    assert answer["timings"]["cache_n"] == 3
    assert "completion_probabilities" not in answer
    assert "__verbose" not in answer


def test_tokens_are_left_out_unless_wanted(client: httpx.Client) -> None:
    assert completion(client)["tokens"] == []


def test_a_stream_is_pieces_and_the_whole_answer_without_its_text(client: httpx.Client) -> None:
    response = client.post("/completion", json={"prompt": "x", "stream": True, "timings_per_token": True})
    *pieces, last = events_of(response)

    assert response.headers["x-accel-buffering"] == "no"
    assert [(piece["content"], piece["tokens"], piece["stop"]) for piece in pieces] == [
        ("ab", [97, 98], False),
        ("c", [99], False),
    ]
    assert [(piece["tokens_predicted"], piece["tokens_evaluated"]) for piece in pieces] == [(2, 7), (3, 7)]
    assert pieces[-1]["timings"]["predicted_n"] == 3
    assert (last["content"], last["tokens"], last["stop"], last["stop_type"]) == ("", [], True, "eos")
    assert last["generation_settings"]["stream"] is True


def test_progress_of_the_prompt_is_told_where_wanted(client: httpx.Client) -> None:
    first, *_ = events_of(
        client.post("/completion", json={"prompt": "x", "stream": True, "return_progress": True})
    )
    chat = client.post(
        "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "x"}], "stream": True, "return_progress": True},
    )

    assert first["prompt_progress"] == {"total": 7, "cache": 3, "processed": 7, "time_ms": 8}
    assert '"prompt_progress":{"total":7' in chat.text


def test_several_prompts_make_an_array_in_their_order(client: httpx.Client) -> None:
    both = client.post("/completion", json={"prompt": ["x", [120, 121]]}).json()
    one = client.post("/completion", json={"prompt": ["x"]}).json()
    twice = client.post("/completion", json={"prompt": "echo", "n_cmpl": 2, "seed": 7}).json()

    assert [(answer["index"], answer["content"]) for answer in both] == [(0, "abc"), (1, "abc")]
    assert [answer["index"] for answer in one] == [0]
    assert [json.loads(answer["content"])["parameters"]["seed"] for answer in twice] == [7, 8]


def test_prompts_reach_the_engine_in_every_form(client: httpx.Client) -> None:
    assert reached(client, "echo")["raw_prompt"] == "echo"
    assert reached(client, ["echo", 12, 13])["prompt_parts"] == ["echo", 12, 13]
    media = reached(client, {"prompt_string": "echo <__media__>", "multimodal_data": ["iVBORw0KGgo="]})
    assert [item["type"] for item in media["raw_media"]] == ["image"]
    got = reached(client)
    assert (got["raw_thoughts"], got["want_tokens"], got["source"]) == (True, True, "wingman")


def test_bindings_without_token_prompts_get_the_text(client: httpx.Client) -> None:
    answer = completion(client, [104, 105, " you"], model="echo")
    assert answer["content"] == "hi you"
    refused = client.post("/completion", json={"prompt": [104, 105], "model": "mute"})
    assert refused.status_code == 501


# --- parameters ---


def test_every_sampling_field_reaches_the_engine_and_is_shown_again(client: httpx.Client) -> None:
    parameters = reached(client, **GIVEN)["parameters"]
    shown = completion(client, "x", model="engine", **GIVEN)["generation_settings"]

    sent = {name: value for name, value in GIVEN.items() if name not in ("n_predict", "timings_per_token")}
    assert {name: parameters[name] for name in sent} == sent
    assert parameters["max_tokens"] == 12
    expected = {**GIVEN, "max_tokens": 12, "temperature": 0.25}  # what the engine says wins
    assert {name: shown[name] for name in expected} == expected


def test_bindings_without_an_engine_show_what_was_given_and_llama_servers_defaults(
    client: httpx.Client,
) -> None:
    given = {name: value for name, value in GIVEN.items() if not name.startswith("grammar")}
    shown = completion(client, "x", model="echo", **given)["generation_settings"]
    default = completion(client, "x", model="echo")["generation_settings"]

    assert {name: shown[name] for name in given} == given
    assert default.keys() == shown.keys()
    assert {
        name: default[name] for name in ("temperature", "top_k", "top_p", "min_p", "seed", "n_predict")
    } == {
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "seed": 4294967295,
        "n_predict": -1,
    }
    assert all(name in default for name in GIVEN)


@pytest.mark.parametrize(
    ("given", "reaches"),
    [
        ({"top_k": -5}, {"top_k": 0}),
        ({"top_p": 7, "min_p": -1, "xtc_probability": 2}, {"top_p": 1, "min_p": 0, "xtc_probability": 1}),
        ({"temperature": -1}, {"temperature": 0}),
        ({"mirostat": 9}, {"mirostat": 2}),
        ({"n_predict": 0}, {"max_tokens": 1}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_tokens": 6}),
        ({"seed": 2**40}, {"seed": 2**40 % (2**32 - 1)}),
        ({"seed": -1}, {"seed": -1}),
        ({"dry_base": 0.5}, {"dry_base": 1.75}),
        ({"top_k": 3.0}, {"top_k": 3}),
        ({"stop": "one"}, {"stop": ["one"]}),
        ({"logit_bias": {"15": 1.5, "hello": False}}, {"logit_bias": {"15": 1.5, "hello": False}}),
        ({"samplers": "kpt"}, {"samplers": "kpt"}),
        ({"samplers": ["top_k", "no_such_sampler"]}, {"samplers": ["top_k"]}),
    ],
)
def test_values_are_clamped_before_they_reach_a_binding(
    inference: httpx.Client, given: dict[str, Any], reaches: dict[str, Any]
) -> None:
    parameters = reached(inference, **given)["parameters"]
    assert {name: parameters[name] for name in reaches} == reaches


def test_no_limit_means_no_limit_for_an_engine(inference: httpx.Client) -> None:
    assert reached(inference, n_predict=-1)["parameters"]["max_tokens"] == -1
    assert reached(inference)["parameters"]["max_tokens"] == 1024


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": None}, "must be provided"),
        ({"prompt": []}, "must not be empty"),
        ({"prompt": [[]]}, "must not be empty"),
        ({"prompt": 7}, "must be a string"),
        ({"prompt": [1.5, 2]}, "integer"),
        ({"prompt": [2**70]}, "integer"),
        ({"prompt": [-1]}, "integer"),
        ({"n_predict": -2}, "n_predict"),
        ({"n_predict": "many"}, "n_predict"),
        ({"top_k": 2**40}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"repeat_last_n": -2}, "repeat_last_n"),
        ({"seed": 2**64}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"dry_sequence_breakers": []}, "non-empty"),
        ({"logit_bias": [[1]]}, "logit_bias"),
        ({"logit_bias": [[2**40, 1]]}, "logit_bias"),
        ({"lora": [{"id": -1, "scale": 1}]}, "id"),
        ({"json_schema": {"a": [[[[[]]]]]}, "n_cmpl": 10**6}, "n_cmpl"),
        ({"json_schema": "{"}, "json_schema"),
        ({"grammar": "x" * 300_000}, "grammar"),
        ({"id_slot": 2**31}, "id_slot"),
        ({"model": 5}, "model"),
        ({"stop": ["x"] * 100}, "stop"),
        ({"response_fields": [1]}, "response_fields"),
    ],
)
def test_what_is_wrong_is_a_400_that_names_it(
    inference: httpx.Client, fields: dict[str, Any], words: str
) -> None:
    response = inference.post("/completion", json={"prompt": "x", **fields})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (400, 400, "invalid_request_error")
    assert words in error["message"]


def test_grammars_go_only_where_they_are_kept_to(client: httpx.Client) -> None:
    body = {"prompt": "x", "grammar": 'root ::= "a"', "model": "echo"}
    response = client.post("/completion", json=body)
    assert response.status_code == 501
    assert response.json()["error"]["type"] == "not_supported_error"


# --- probabilities, fields ---


def test_probabilities_before_and_after_sampling(client: httpx.Client) -> None:
    before = completion(client, n_probs=2)["completion_probabilities"]
    after = completion(client, n_probs=2, post_sampling_probs=True)["completion_probabilities"]
    pieces = events_of(client.post("/completion", json={"prompt": "x", "n_probs": 2, "stream": True}))

    assert [entry["token"] for entry in before] == ["a", "b", "c"]
    assert {key: before[0][key] for key in ("id", "bytes", "logprob", "content")} == {
        "id": 97,
        "bytes": [97],
        "logprob": 0.0,
        "content": "a",
    }
    assert before[0]["top_logprobs"] == [
        {"id": 97, "token": "a", "bytes": [97], "logprob": 0.0},
        {"id": 98, "token": "b", "bytes": [98], "logprob": pytest.approx(-3.4e38, rel=0.01)},
    ]
    assert before[0]["probs"] == [{"tok_str": "a", "prob": 1.0}, {"tok_str": "b", "prob": 0.0}]
    assert after[0]["prob"] == 1.0
    assert [entry["token"] for entry in after[0]["top_probs"]] == ["a"]
    assert [len(piece.get("completion_probabilities", [])) for piece in pieces] == [1, 1, 1, 0]
    assert [piece["content"] for piece in pieces] == ["a", "b", "c", ""]


def test_response_fields_pick_and_flatten(client: httpx.Client) -> None:
    wanted = ["content", "generation_settings/top_k", "timings/prompt_n", "no/such", "tokens"]
    assert completion(client, response_fields=wanted) == {
        "content": "abc",
        "generation_settings/top_k": 40,
        "timings/prompt_n": 4,
        "tokens": [],
    }
    *_, last = events_of(
        client.post("/completion", json={"prompt": "x", "stream": True, "response_fields": ["stop"]})
    )
    assert last == {"stop": True}


def test_timings_are_numbers_where_no_engine_measures(client: httpx.Client) -> None:
    timings = completion(client, "one", model="echo", n_predict=1)["timings"]
    assert set(timings) == {
        "cache_n",
        *(
            f"{kind}_{what}"
            for kind in ("prompt", "predicted")
            for what in ("n", "ms", "per_token_ms", "per_second")
        ),
    }
    assert all(isinstance(value, int | float) for value in timings.values())


def test_verbose_chats_show_the_native_answer(client: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "verbose": True}
    assert client.post("/v1/chat/completions", json=body).json()["__verbose"]["content"] == "abc"


# --- infill, tokens, templates ---


def test_infill_reaches_the_engine(client: httpx.Client) -> None:
    body = {
        "input_prefix": "def f():\n",
        "input_suffix": "\nreturn x",
        "prompt": "echo",
        "input_extra": [{"filename": "a.py", "text": "x = 1"}, {"text": "y"}],
    }
    answer = client.post("/infill", json=body)
    assert json.loads(answer.json()["content"])["infill"] == {
        "prefix": "def f():\n",
        "suffix": "\nreturn x",
        "prompt": "echo",
        "extra": [["a.py", "x = 1"], ["tmp", "y"]],
    }
    for missing in ("input_prefix", "input_suffix"):
        refused = client.post("/infill", json={key: value for key, value in body.items() if key != missing})
        assert refused.json()["error"]["message"] == f'"{missing}" is required'
    assert client.post("/infill", json={**body, "input_extra": [{"text": 1}]}).status_code == 400
    assert client.post("/infill", json={**body, "input_extra": {}}).status_code == 400
    unable = client.post("/infill", json={**body, "model": "echo"})
    assert unable.status_code == 501
    assert "Infill is not supported by this model" in unable.json()["error"]["message"]


def test_tokens_and_back(client: httpx.Client) -> None:
    def tokens(**body: Any) -> Any:
        return client.post("/tokenize", json=body).json()["tokens"]

    assert tokens(content="hi") == [104, 105]
    assert tokens(content="hi", add_special=True) == [256, 104, 105]
    assert tokens(content=["h", 7, "i"], add_special=True) == [256, 104, 7, 105]
    assert tokens(content="hi", with_pieces=True) == [{"id": 104, "piece": "h"}, {"id": 105, "piece": "i"}]
    assert tokens(content="ü", with_pieces=True) == [
        {"id": 0xC3, "piece": [0xC3]},
        {"id": 0xBC, "piece": [0xBC]},
    ]
    assert tokens(content="hi", with_pieces=True, model="echo")[0] == {"id": 104, "piece": "h"}
    assert tokens() == []
    assert client.post("/detokenize", json={"tokens": [104, 105]}).json() == {"content": "hi"}
    assert client.post("/detokenize", json={}).json() == {"content": ""}
    assert client.post("/detokenize", json={"tokens": [999]}).status_code == 400
    assert client.post("/detokenize", json={"tokens": "x"}).status_code == 400
    assert client.post("/tokenize", json={"content": "x", "model": "mute"}).status_code == 501


def test_the_prompt_of_a_template(client: httpx.Client) -> None:
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    prefilled = [*turns, {"role": "assistant", "content": "A"}]

    def prompt(messages: list[dict[str, str]]) -> str:
        return str(client.post("/apply-template", json={"messages": messages}).json()["prompt"])

    assert prompt(turns) == "<system>S<user>U<assistant>"
    assert prompt(prefilled) == "<system>S<user>U<assistant>A"
    assert client.post("/apply-template", json={"messages": turns, "model": "echo"}).status_code == 501


# --- embeddings, reranking, adapters ---


def test_embeddings_in_every_shape(client: httpx.Client) -> None:
    vector = [3.0, 0.5, -1.0, 2.0]
    assert client.post("/embedding", json={"content": "abc"}).json() == [{"index": 0, "embedding": [vector]}]
    assert client.post("/embeddings", json={"content": ["abc"]}).json() == [
        {"index": 0, "embedding": [vector]}
    ]
    openai = client.post("/embeddings", json={"input": "abc", "embd_normalize": -1}).json()
    assert (openai["object"], openai["data"][0]["embedding"]) == ("list", [*vector[:3], -1.0])
    each = client.post("/embeddings", json={"input": "abc", "model": "unpooled"}).json()
    assert each == [{"index": 0, "embedding": [vector] * 3}]
    refused = client.post("/v1/embeddings", json={"input": "abc", "model": "unpooled"})
    assert refused.status_code == 400
    assert "Pooling type 'none'" in refused.json()["error"]["message"]
    assert client.post("/v1/embeddings", json={}).status_code == 400
    assert client.post("/v1/embeddings", json={"input": "x", "encoding_format": "hex"}).status_code == 400
    assert client.post("/v1/embeddings", json={"input": ""}).status_code == 200


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/reranking", "/v1/reranking"])
def test_documents_are_ranked(client: httpx.Client, path: str) -> None:
    body = {"query": "a", "documents": ["b", "aaa", "ab"], "top_n": 2, "return_documents": True}
    answer = client.post(path, json=body).json()
    assert answer["results"] == [
        {"index": 1, "relevance_score": 3.0, "document": {"text": "aaa"}},
        {"index": 2, "relevance_score": 1.0, "document": {"text": "ab"}},
    ]
    assert answer["usage"]["total_tokens"] == 11
    assert client.post(path, json={"query": "a", "texts": ["a", "b"]}).json() == [
        {"index": 0, "score": 1.0},
        {"index": 1, "score": 0.0},
    ]
    wrongs: list[dict[str, Any]] = [
        {"documents": ["x"]},
        {"query": "a"},
        {"query": "a", "documents": []},
        {"query": 1, "documents": ["x"]},
    ]
    for wrong in wrongs:
        assert client.post(path, json=wrong).status_code == 400
    assert client.post(path, json={**body, "model": "echo"}).status_code == 501


def test_adapters_change_their_scale(client: httpx.Client) -> None:
    changed = client.post("/lora-adapters", json=[{"id": 0, "scale": 0.25}])
    assert changed.json() == {"success": True}
    assert client.get("/lora-adapters").json() == [{"id": 0, "path": "a0.gguf", "scale": 0.25}]
    wrongs: list[Any] = [{}, [1], [{"id": -1, "scale": 1}], [{"id": 0, "scale": "x"}]]
    for wrong in wrongs:
        assert client.post("/lora-adapters", json=wrong).status_code == 400
    assert client.get("/lora-adapters", params={"model": "echo"}).status_code == 501
