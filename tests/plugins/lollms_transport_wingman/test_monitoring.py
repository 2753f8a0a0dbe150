"""What programs that watch a server ask: health, slots, figures, properties, models."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from .conftest import Ports

COUNTERS = {
    "prompt_tokens",
    "prompt_tokens_cached",
    "prompt_seconds",
    "tokens_predicted",
    "tokens_predicted_seconds",
    "n_decode",
    "n_tokens_max",
    "spec_decode_num_draft_tokens",
    "spec_decode_num_accepted_tokens",
    "spec_decode_num_drafts",
}
GAUGES = {
    "prompt_tokens_seconds",
    "predicted_tokens_seconds",
    "requests_processing",
    "requests_deferred",
    "n_busy_slots_per_decode",
    "kv_cache_usage_ratio",
    "kv_cache_tokens",
}


def test_health_counts_slots(client: httpx.Client) -> None:
    told = client.get("/health").json()
    assert (told["status"], told["slots_idle"], told["slots_processing"]) == ("ok", 2, 0)
    assert "slots" not in told
    assert len(client.get("/health?include_slots").json()["slots"]) == 2
    assert client.get("/v1/health").json()["slots_idle"] == 2


def test_include_slots_can_be_switched_off(client: httpx.Client) -> None:
    assert "slots" in client.get("/health?include_slots=1").json()
    assert "slots" not in client.get("/health?include_slots=false").json()


def test_the_main_port_keeps_what_it_said_of_itself(main: httpx.Client) -> None:
    told = main.get("/health").json()
    assert told["version"]
    assert told["api_key_required"] is False


def test_without_an_idle_slot_health_and_slots_say_so(ports: Ports) -> None:
    body = {"prompt": "slow", "stream": True}
    with (
        httpx.stream("POST", f"{ports.inference}/completion", json=body, timeout=60) as one,
        httpx.stream("POST", f"{ports.inference}/completion", json=body, timeout=60) as two,
    ):
        pieces = [one.iter_raw(), two.iter_raw()]  # kept: httpx closes what nobody iterates any more
        for piece in pieces:
            next(piece)
        old = httpx.get(f"{ports.inference}/health")
        failing = httpx.get(f"{ports.inference}/health?fail_on_no_slot")
        of_main = httpx.get(f"{ports.main}/health")
        main_failing = httpx.get(f"{ports.main}/health?fail_on_no_slot=1")
        slots = httpx.get(f"{ports.inference}/slots?fail_on_no_slot=1")
        busy = httpx.get(f"{ports.inference}/slots").json()
        figures = httpx.get(f"{ports.inference}/metrics").text

    assert (old.status_code, old.json()["status"], old.json()["slots_processing"]) == (
        200,
        "no slot available",
        2,
    )
    assert (failing.status_code, failing.json()["status"]) == (503, "no slot available")
    assert (of_main.status_code, of_main.json()["status"]) == (200, "ok")
    assert main_failing.status_code == 503
    assert (slots.status_code, slots.json()["error"]["message"]) == (503, "no slot available")
    assert slots.json()["error"]["type"] == "unavailable_error"
    assert [slot["state"] for slot in busy] == [1, 1]
    assert "llamacpp:requests_processing 2" in figures


def test_slots_have_the_keys_of_either_flavour(client: httpx.Client) -> None:
    slots = client.get("/slots").json()
    assert [slot["id"] for slot in slots] == [0, 1]
    assert {"n_ctx", "is_processing", "state", "prompt", "next_token"} <= slots[0].keys()
    assert client.get("/slots", params={"model": "echo"}).status_code == 501


def test_slots_are_saved_restored_and_erased(client: httpx.Client) -> None:
    def act(slot: str, action: str, body: object = None) -> httpx.Response:
        return client.post(f"/slots/{slot}?action={action}", json=body)

    assert act("1", "save", {"filename": "a.bin"}).json()["filename"] == "a.bin"
    assert act("0", "restore", {"filename": "a.bin"}).status_code == 200
    assert client.post("/slots/0?action=erase").json() == {"id_slot": 0, "n_erased": 5}
    assert act("x", "save", {"filename": "a"}).json()["error"]["message"] == "Invalid slot ID"
    assert act("99999999999", "save", {"filename": "a"}).json()["error"]["message"] == "Invalid slot ID"
    assert act("7", "erase").json()["error"]["message"] == "Invalid slot ID"
    assert act("0", "sell", {"filename": "a"}).json()["error"]["message"] == "Invalid action"
    for name in (
        "",
        "../a",
        "a/b",
        "a\\b",
        "a:b",
        "a*",
        " a",
        "a ",
        "a.",
        "..",
        "a\x00b",
        "x" * 256,
        None,
        7,
        "\ud800",
    ):
        refused = (
            client.post(
                "/slots/0?action=save",
                content=httpx.Request("POST", "http://x", json={"filename": name}).content,
            )
            if name != "\ud800"
            else client.post("/slots/0?action=save", content=b'{"filename": "\\ud800"}')
        )
        assert refused.status_code == 400, name


def test_figures_are_prometheus_figures_by_llama_servers_names(client: httpx.Client) -> None:
    for model in ("", "echo"):
        client.post("/completion", json={"prompt": "hello there", "model": model})
        response = client.get("/metrics", params={"model": model})
        families = {family.name: family for family in text_string_to_metric_families(response.text)}

        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert int(response.headers["process-start-time-unix"]) > 0
        assert {f"llamacpp:{name}" for name in COUNTERS | GAUGES} == families.keys()
        for name in COUNTERS | GAUGES:
            family = families[f"llamacpp:{name}"]
            assert family.type == ("counter" if name in COUNTERS else "gauge")
            assert family.documentation
            assert len(family.samples) == 1
        assert families["llamacpp:tokens_predicted"].samples[0].value > 0


def test_averages_are_those_since_the_last_look(ports: Ports) -> None:
    def rate() -> float:
        text = httpx.get(f"{ports.main}/metrics", params={"model": "worker"}).text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        return float(families["llamacpp:prompt_tokens_seconds"].samples[0].value)

    first, second = rate(), rate()
    httpx.post(f"{ports.main}/completion", json={"prompt": "x", "model": "worker"}, timeout=60)
    assert (first, second, rate()) == (20.0, 0.0, 1.0)


def test_properties_of_model_and_server(client: httpx.Client) -> None:
    told = client.get("/props").json()
    assert told["default_generation_settings"]["params"]["top_k"] == 40
    assert told["default_generation_settings"]["n_ctx"] == 256
    assert told["chat_template"] == "{{ x }}"
    assert told["bos_token"] == "<s>"
    assert told["modalities"] == {"vision": True, "audio": True, "video": False}
    assert (told["endpoint_slots"], told["endpoint_metrics"], told["endpoint_props"]) == (True, True, False)
    assert (told["user_name"], told["assistant_name"]) == ("", "")
    refused = client.post("/props", json={})
    assert refused.status_code == 501


def test_the_inference_port_lists_its_one_model(inference: httpx.Client) -> None:
    for path in ("/models", "/v1/models"):
        listing = inference.get(path).json()
        [model] = listing["data"]
        assert (model["id"], model["object"], model["owned_by"]) == ("engine-model", "model", "llamacpp")
        assert (model["meta"]["n_vocab"], model["meta"]["n_ctx_train"], model["meta"]["size"]) == (
            257,
            2048,
            1234,
        )
        assert listing["models"][0]["name"] == "engine-model"


def test_the_main_port_lists_every_model_and_personality_by_a_name_that_chooses_it(
    main: httpx.Client,
) -> None:
    names = {entry["id"]: entry for entry in main.get("/v1/models").json()["data"]}

    assert {
        "echo-model",
        "paint-model",
        "engine/engine-model",
        "worker/engine-model",
        "personality:pirate",
    } <= set(names)
    assert names["echo-model"]["owned_by"] == "echo"
    assert names["engine/engine-model"]["tags"] == ["default"]
    assert not any(name.startswith("broken") for name in names)
    for name in ("echo-model", "echo/echo-model", "echo"):
        answer = main.post("/completion", json={"prompt": "hello", "model": name}).json()
        assert answer["content"] == "hello"
        assert answer["model"] == "echo-model"


@pytest.mark.parametrize("how", ["model", "field", "header"])
def test_a_personality_can_be_chosen(client: httpx.Client, how: str) -> None:
    body = {"messages": [{"role": "user", "content": "echo"}]}
    extra = {"model": {"model": "personality:pirate"}, "field": {"personality": "pirate"}, "header": {}}[how]
    headers = {"X-Lollms-Personality": "pirate"} if how == "header" else {}
    answer = client.post("/v1/chat/completions", json={**body, **extra}, headers=headers)
    assert "Talk like a pirate." in answer.json()["choices"][0]["message"]["content"]


def test_a_name_that_is_nothing_is_an_error_on_the_main_port_and_the_model_on_the_other(
    main: httpx.Client, inference: httpx.Client
) -> None:
    body = {"prompt": "x", "model": "gpt-4"}
    refused = main.post("/completion", json=body)
    served = inference.post("/completion", json=body)

    assert refused.status_code == 404
    assert "echo-model" in refused.json()["error"]["message"]
    assert refused.json()["error"]["type"] == "not_found_error"
    assert (served.status_code, served.json()["model"]) == (200, "engine-model")
    assert inference.post("/completion", json={"prompt": "x", "model": "echo"}).json()["content"] == "x"
