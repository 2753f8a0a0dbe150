"""A whole server with Gemini instances: REST in, Google's protocol out."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from lollms_kernel.dummy import small_png
from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.fakes.gemini import FakeGemini
from lollms_kernel.testing.fakes.gemini_answers import GeminiAnswer

KEY = "AIza-instance-secret"
API = "/api/v1"
DEFAULTS = {"defaults": {"ttt_binding": "words", "tti_binding": "pictures"}}


def config(url: str | None, **settings: Any) -> dict[str, Any]:
    where = {"base_url": url or "http://127.0.0.1:9", "google_api_key": KEY}
    return {
        "words": {"type": "gemini_binding", **where, **settings},
        "pictures": {"type": "gemini_image_binding", **where},
    }


@pytest.fixture
def server(fake: FakeGemini, lollms_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server with a text and an image instance."""
    return lollms_server(DEFAULTS, config(fake.url))


def body(text: str, *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"input_data": [{"type": "text", "role": "user_prompt", "data": text}, *more], **fields}


def post(server: ServerProcess, path: str, sent: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}{API}/{path}", json=sent, timeout=60)


def test_a_question_goes_all_the_way(fake: FakeGemini, server: ServerProcess) -> None:
    fake.answer = lambda _: GeminiAnswer(thoughts="hm", text="It is <think>aside</think>blue.")

    answer = post(server, "generate", body("Why?", model_name="gemini-2.5-flash")).json()

    (output,) = answer["output"]
    assert output["data"] == "It is blue."
    assert output["thoughts"] == "hm\n\naside"
    assert output["metadata"]["usage"]["prompt_tokens"] == 1
    assert output["metadata"]["model_used"] == "gemini-2.5-flash"


def test_a_picture_goes_in_before_anything_was_loaded_and_another_comes_out(
    fake: FakeGemini, server: ServerProcess
) -> None:
    data = base64.b64encode(small_png(7)).decode()
    image = {"type": "image", "role": "input_image", "data": data, "mime_type": "image/png"}

    sees = post(server, "generate", body("?", image))
    blind = post(server, "generate", body("?", image, model_name="gemma-3-1b-it"))
    drawn = post(server, "generate", body("a cat", generation_type="tti"))

    assert sees.status_code == 200, sees.text
    assert blind.status_code == 400
    (output,) = drawn.json()["output"]
    assert (output["type"], output["mime_type"]) == ("image", "image/png")
    assert base64.b64decode(output["data"]) == small_png(0)
    assert output["metadata"]["model_used"] == "imagen-3.0-generate-002"


def test_tokens_are_counted_though_they_have_no_ids(server: ServerProcess) -> None:
    counted = post(server, "count_tokens", {"text": "one two three"})
    other = post(server, "count_tokens", {"text": "x", "binding_name": "pictures"})

    assert (counted.status_code, counted.json()) == (200, {"count": 3})
    assert post(server, "count_tokens", {"text": "x", "model_name": "nothing"}).status_code == 404
    assert post(server, "tokenize", {"text": "x"}).status_code == 501
    assert post(server, "detokenize", {"tokens": [1]}).status_code == 501
    assert (other.status_code, other.json()["detail"]) == (
        501,
        "Binding instance 'pictures' does not support tokenization required for counting.",
    )


def test_listings_are_complete(fake: FakeGemini, server: ServerProcess) -> None:
    models = httpx.get(f"{server.url}{API}/list_available_models/words").json()["models"]
    asked = {"model_name": "gemini-2.5-flash"}
    info = httpx.get(f"{server.url}{API}/get_model_info/words", params=asked).json()

    assert {len(model) for model in models} == {16}
    assert (info["supports_vision"], info["supports_audio"], info["context_size"]) == (True, True, 1_048_576)


def test_a_model_that_makes_something_else_is_refused_for_that_reason(server: ServerProcess) -> None:
    answer = post(server, "generate", body("Hi", model_name="gemini-2.5-flash-preview-tts"))

    assert answer.status_code == 501
    assert "audio" in answer.text


def test_a_blocked_prompt_is_a_clear_error(fake: FakeGemini, server: ServerProcess) -> None:
    fake.answer = lambda _: GeminiAnswer(blocked="PROHIBITED_CONTENT")

    answer = post(server, "generate", body("Hi"))

    assert answer.status_code == 400
    assert "PROHIBITED_CONTENT" in answer.text


def test_the_server_starts_without_the_service_says_so_and_shows_no_secret(
    lollms_server: Callable[..., ServerProcess],
) -> None:
    server = lollms_server(DEFAULTS, config(None))

    answer = post(server, "generate", body("Hi"))
    listings = [
        httpx.get(f"{server.url}{API}/{name}").text for name in ("list_bindings", "list_active_bindings")
    ]

    assert answer.status_code == 503
    assert "cannot be reached" in answer.text
    assert KEY not in answer.text + "".join(listings) + server.log()
    assert "cannot be reached" in server.log()
