"""A whole server with OpenAI instances: REST in, OpenAI's protocol out."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from lollms_kernel.dummy import short_wav, small_png
from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.fakes import stalled
from lollms_kernel.testing.fakes.openai import FakeOpenAI, OpenAIAnswer

KEY = "sk-instance-secret"
API = "/api/v1"
CONFIG = {
    "defaults": {
        "ttt_binding": "chat",
        "tti_binding": "pictures",
        "tts_binding": "voice",
        "stt_binding": "ears",
    }
}


def body(text: str, *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"input_data": [{"type": "text", "role": "user_prompt", "data": text}, *more], **fields}


def media(kind: str, data: bytes, mime_type: str) -> dict[str, Any]:
    encoded = base64.b64encode(data).decode()
    return {"type": kind, "role": f"input_{kind}", "data": encoded, "mime_type": mime_type}


def instances(base_url: str) -> dict[str, Any]:
    service = {"base_url": base_url, "api_key": KEY}
    return {
        "chat": {"type": "openai_binding", **service},
        "voice": {"type": "openai_binding", "default_model": "tts-1", **service},
        "ears": {"type": "openai_binding", "default_model": "whisper-1", **service},
        "pictures": {"type": "dalle_binding", **service},
    }


@pytest.fixture
def ask(
    fake: FakeOpenAI, lollms_server: Callable[..., ServerProcess]
) -> Iterator[Callable[..., httpx.Response]]:
    """Posts to `generate` of a server whose instances ask the fake."""
    fake.api_key = KEY
    server = lollms_server(CONFIG, instances(fake.base_url))

    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield lambda content: client.post(f"{API}/generate", json=content)


def output(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()["output"][0]
    return found


def test_every_kind_of_generation_goes_all_the_way(
    ask: Callable[..., httpx.Response], fake: FakeOpenAI
) -> None:
    fake.answer = lambda _: OpenAIAnswer(content="It is blue.", reasoning="hm")
    png = small_png(7)

    text = output(ask(body("Why?", media("image", png, "image/png"))))
    assert (text["data"], text["thoughts"]) == ("It is blue.", "hm")
    assert text["metadata"]["usage"]["completion_tokens"] == 4
    sent = fake.requests_to("/chat")[0].json["messages"][-1]["content"][-1]
    assert sent["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(png).decode()

    picture = output(ask(body("A fox", generation_type="tti", parameters={"size": "1792x1024"})))
    assert (picture["type"], picture["mime_type"]) == ("image", "image/png")
    assert picture["metadata"]["size"] == "1792x1024"

    red = ask(
        body(
            "Red",
            media("image", png, "image/png"),
            generation_type="i2i",
            binding_name="pictures",
            model_name="dall-e-2",
        )
    )
    assert output(red)["type"] == "image"

    speech = output(ask(body("Good morning.", generation_type="tts", parameters={"format": "wav"})))
    assert (speech["type"], speech["mime_type"]) == ("audio", "audio/wav")

    heard = output(ask(body("", media("audio", short_wav(), "audio/wav"), generation_type="stt")))
    assert heard["data"] == fake.transcript


def test_a_wrong_request_is_refused_with_its_status_before_anything_streams(
    ask: Callable[..., httpx.Response], fake: FakeOpenAI
) -> None:
    unknown = ask(body("Hi", model_name="gpt-99", stream=True))
    size = ask(body("A fox", generation_type="tti", parameters={"size": "1x1"}, stream=True))
    speech = ask(body("Hi", generation_type="tts", binding_name="chat"))

    assert (unknown.status_code, size.status_code, speech.status_code) == (503, 400, 501)
    assert "gpt-4o-mini" in unknown.text  # the REST protocol's 503 for a model that cannot be had


def test_a_stream_arrives_piece_by_piece_and_leaving_it_closes_the_upstream(
    fake: FakeOpenAI, lollms_server: Callable[..., ServerProcess]
) -> None:
    server = lollms_server(CONFIG, instances(fake.base_url))
    fake.faults.append(stalled(3, "/chat"))
    content = body("one two three four", stream=True)

    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", f"{server.url}{API}/generate", json=content) as response,
    ):
        lines = response.iter_lines()
        first = json.loads(next(lines).removeprefix("data: "))

    assert (first["type"], first["content"]) == ("chunk", "one")
    assert fake.requests_to("/chat")[0].left.wait(30)


def test_the_server_starts_without_the_service_and_shows_no_secret(
    lollms_server: Callable[..., ServerProcess],
) -> None:
    server = lollms_server(CONFIG, instances("http://127.0.0.1:9/v1"))

    answer = httpx.post(f"{server.url}{API}/generate", json=body("Hi"), timeout=60)
    listings = [
        httpx.get(f"{server.url}{API}/{name}").text for name in ("list_bindings", "list_active_bindings")
    ]

    assert answer.status_code == 503
    assert "base_url" in answer.text
    assert "openai_binding" in listings[0]
    assert KEY not in answer.text + "".join(listings) + server.log()


def test_listings_have_the_documented_fields_and_tokens_are_not_given(
    fake: FakeOpenAI, lollms_server: Callable[..., ServerProcess]
) -> None:
    server = lollms_server(CONFIG, instances(fake.base_url))

    tokens = httpx.post(f"{server.url}{API}/tokenize", json={"text": "x", "binding_name": "chat"})
    models = httpx.get(f"{server.url}{API}/list_available_models/chat").json()["models"]
    info = httpx.get(f"{server.url}{API}/get_model_info/chat", params={"model_name": "gpt-4o"}).json()

    assert tokens.status_code == 501
    assert len(models[0]) == 16
    assert (info["model_name"], info["supports_vision"], info["supports_streaming"]) == ("gpt-4o", True, True)
