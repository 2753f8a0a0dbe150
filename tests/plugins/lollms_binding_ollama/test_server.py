"""A whole server with an Ollama instance: REST in, Ollama's protocol out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from lollms_kernel.dummy import small_png
from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.fakes.ollama import FakeOllama, OllamaAnswer

KEY = "sk-instance-secret"
API = "/api/v1"


def config(fake: FakeOllama | None, **settings: Any) -> dict[str, Any]:
    host = fake.url if fake else "http://127.0.0.1:9"
    return {"mine": {"type": "ollama_binding", "host": host, "api_key": KEY, **settings}}


def body(text: str, *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"input_data": [{"type": "text", "role": "user_prompt", "data": text}, *more], **fields}


DEFAULTS = {"defaults": {"ttt_binding": "mine"}}


def test_a_question_goes_all_the_way(fake: FakeOllama, lollms_server: Callable[..., ServerProcess]) -> None:
    server = lollms_server(DEFAULTS, config(fake))
    fake.answer = lambda _: OllamaAnswer(thinking="hm", content="It is <think>aside</think>blue.")

    answer = httpx.post(f"{server.url}{API}/generate", json=body("Why?"), timeout=60).json()

    (output,) = answer["output"]
    assert output["data"] == "It is blue."
    assert "hm" in output["thoughts"]
    assert output["metadata"]["usage"]["prompt_tokens"] == 1


def test_images_for_a_vision_model_are_accepted_before_it_is_loaded_and_refused_by_others(
    fake: FakeOllama, lollms_server: Callable[..., ServerProcess]
) -> None:
    import base64

    server = lollms_server(DEFAULTS, config(fake))
    data = base64.b64encode(small_png(7)).decode()
    image = {"type": "image", "role": "input_image", "data": data, "mime_type": "image/png"}

    sees = httpx.post(f"{server.url}{API}/generate", json=body("?", image, model_name="llava:7b"), timeout=60)
    blind = httpx.post(
        f"{server.url}{API}/generate", json=body("?", image, model_name="llama3.2"), timeout=60
    )

    assert sees.status_code == 200, sees.text
    assert fake.requests_to("/api/chat")[0].json["messages"][0]["images"] == [data]
    assert blind.status_code == 400


def test_the_server_starts_without_ollama_says_so_and_shows_no_secret(
    lollms_server: Callable[..., ServerProcess],
) -> None:
    server = lollms_server(DEFAULTS, config(None))

    answer = httpx.post(f"{server.url}{API}/generate", json=body("Hi"), timeout=60)
    listings = [
        httpx.get(f"{server.url}{API}/{name}").text for name in ("list_bindings", "list_active_bindings")
    ]

    assert answer.status_code == 503
    assert "ollama serve" in answer.text
    assert KEY not in answer.text + "".join(listings) + server.log()
    assert "cannot be reached" in server.log()


def test_tokens_are_not_counted_and_listings_are_complete(
    fake: FakeOllama, lollms_server: Callable[..., ServerProcess]
) -> None:
    server = lollms_server(DEFAULTS, config(fake))

    tokens = httpx.post(f"{server.url}{API}/tokenize", json={"text": "x", "binding_name": "mine"})
    models = httpx.get(f"{server.url}{API}/list_available_models/mine").json()["models"]

    assert tokens.status_code == 501
    assert len(models) == len(fake.models)
    assert len(models[0]) == 16
    info = httpx.get(f"{server.url}{API}/get_model_info/mine", params={"model_name": "llava:7b"}).json()
    assert (info["supports_vision"], info["context_size"]) == (True, 8192)
