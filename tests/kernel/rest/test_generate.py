"""POST /api/v1/generate without streaming, on a live server."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest

from lollms_kernel.dummy import small_png
from lollms_kernel.testing import ServerProcess

from .conftest import LIMIT, prompt

Generate = Callable[..., httpx.Response]
PNG64 = base64.b64encode(small_png(0)).decode()


def output(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    [item] = response.json()["output"]
    assert isinstance(item, dict)
    return item


def reached(response: httpx.Response) -> dict[str, Any]:
    """What reached a binding that echoes it."""
    facts = msgspec.json.decode(output(response)["data"])
    assert isinstance(facts, dict)
    return facts


def test_given_a_prompt_when_asked_then_the_answer_has_the_documented_shape(generate: Generate) -> None:
    response = generate("Hello there", personality=None)
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["request_id", "output", "execution_time"]
    assert len(body["request_id"]) == 16 and int(body["request_id"], 16) >= 0
    assert body["execution_time"] > 0
    item = output(response)
    assert list(item) == ["type", "data", "metadata"]
    assert (item["type"], item["data"]) == ("text", "Hello there")
    metadata = item["metadata"]
    assert (metadata["model_used"], metadata["binding_instance"]) == ("echo-model", "echo")
    assert metadata["finish_reason"] == "stop"
    assert metadata["usage"]["completion_tokens"] == 11
    assert metadata["usage"]["total_tokens"] == 11 + metadata["usage"]["prompt_tokens"]
    assert metadata["timings"]["total"] > 0
    assert "notices" not in metadata


def test_given_a_personality_when_asked_then_it_is_echoed_as_it_was_asked_for(generate: Generate) -> None:
    assert generate(personality="lollms").json()["personality"] == "lollms"


def test_given_a_history_when_asked_then_the_last_prompt_is_answered(client: httpx.Client) -> None:
    items = [
        {"type": "text", "role": role, "data": data}
        for role, data in [
            ("system_prompt", "Be brief."),
            ("user_prompt", "one"),
            ("assistant_reply", "1"),
            ("user_prompt", "two"),
        ]
    ]
    facts = reached(client.post("/api/v1/generate", json={"input_data": items, "binding_name": "system"}))
    assert facts["prompt"] == "two"
    assert [message["content"] for message in facts["messages"]] == ["one", "1", "two"]
    assert facts["system"] == "Be brief."


def test_given_system_texts_when_asked_then_they_are_merged_as_published(client: httpx.Client) -> None:
    def system(**fields: Any) -> str | None:
        items = [{"type": "text", "role": "system_context", "data": " C "}, *prompt("x")["input_data"]]
        body = {"input_data": items, "binding_name": "system", **fields}
        text: str | None = reached(client.post("/api/v1/generate", json=body))["system"]
        return text

    conditioning = system(personality="lollms")
    assert conditioning is not None and conditioning.startswith("C\n\n") and len(conditioning) > 3
    assert system(personality="lollms", parameters={"system_message": " S "}) == "C\n\nS"
    assert system(parameters={"system_message": "S"}) == "C\n\nS"
    assert system() == "C"


def test_given_parameters_when_asked_then_they_reach_the_binding(generate: Generate) -> None:
    facts = reached(
        generate(binding_name="system", parameters={"n_predict": 5, "temperature": 0, "odd": [1]})
    )
    assert facts["parameters"]["max_tokens"] == 5
    assert facts["parameters"]["temperature"] == 0
    assert facts["parameters"]["odd"] == [1]
    assert reached(generate(binding_name="system", parameters=None))["parameters"]["max_tokens"] == 77


def test_given_an_unknown_role_when_asked_then_a_notice_is_in_the_metadata(client: httpx.Client) -> None:
    items = [{"type": "text", "role": "horoscope", "data": "x"}, *prompt("hi")["input_data"]]
    item = output(client.post("/api/v1/generate", json={"input_data": items}))
    assert item["data"] == "hi"
    [notice] = item["metadata"]["notices"]
    assert notice["code"] == "input_ignored"


def test_given_media_when_asked_then_the_bytes_reach_the_binding(client: httpx.Client) -> None:
    items = [
        *prompt("look")["input_data"],
        {"type": "image", "role": "input_image", "data": PNG64, "mime_type": "image/png"},
        {"type": "image", "role": "mask_image", "data": f"data:image/png;base64,{PNG64}"},
        {"type": "document", "role": "context", "data": "Dear Sir"},
    ]
    facts = reached(client.post("/api/v1/generate", json={"input_data": items, "binding_name": "vision"}))
    size = len(small_png(0))
    assert facts["media"] == [
        {"type": "image", "role": "input_image", "mime_type": "image/png", "bytes": size},
        {"type": "image", "role": "mask_image", "mime_type": "image/png", "bytes": size},
        {"type": "document", "role": "context", "mime_type": "text/plain", "bytes": 8},
    ]


def test_given_an_input_that_the_model_cannot_take_when_asked_then_400_names_it(client: httpx.Client) -> None:
    items = [{"type": "audio", "role": "input_audio", "data": "QUJD", "mime_type": "audio/wav"}]
    response = client.post("/api/v1/generate", json={"input_data": items, "binding_name": "echo"})
    assert response.status_code == 400
    assert response.json()["detail"].startswith(
        "Binding instance 'echo' does not support input type 'audio'."
    )


@pytest.mark.parametrize(
    ("kind", "binding", "expected", "mime_type"),
    [("tti", "painter", "image", "image/png"), ("i2i", "painter", "image", "image/png")]
    + [(kind, "speaker", "audio", "audio/wav") for kind in ("tts", "ttm", "audio2audio")],
)
def test_given_a_generation_type_when_asked_then_its_media_come_as_base64(
    generate: Generate, kind: str, binding: str, expected: str, mime_type: str
) -> None:
    item = output(generate("a red cat", generation_type=kind, binding_name=binding))
    assert (item["type"], item["mime_type"]) == (expected, mime_type)
    assert len(base64.b64decode(item["data"], validate=True)) > 50
    assert item["metadata"]["prompt_used"] == "a red cat"
    assert item["metadata"]["binding_instance"] == binding


@pytest.mark.parametrize(
    ("kind", "binding"),
    [("tti", "painter"), ("i2i", "painter"), ("tts", "speaker"), ("audio2audio", "speaker")],
)
def test_given_no_binding_when_asked_then_the_default_of_the_type_answers(
    generate: Generate, kind: str, binding: str
) -> None:
    assert output(generate(generation_type=kind))["metadata"]["binding_instance"] == binding


def test_given_sound_when_transcribed_then_a_text_comes(client: httpx.Client) -> None:
    items = [{"type": "audio", "role": "input_audio", "data": "QUJD", "mime_type": "audio/wav"}]
    body = {"input_data": items, "generation_type": "stt", "binding_name": "listener"}
    assert output(client.post("/api/v1/generate", json=body))["data"] == "I heard it."


@pytest.mark.parametrize(
    ("binding", "text", "thoughts"),
    [
        ("thinker", "a  b c", "x y"),
        ("brooder", "a", "--- Incomplete Thought Block ---\n\nnever ends"),
    ],
)
def test_given_thoughts_when_asked_then_they_stand_beside_the_text(
    generate: Generate, binding: str, text: str, thoughts: str
) -> None:
    item = output(generate(binding_name=binding))
    assert (item["data"], item["thoughts"]) == (text, thoughts)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ({"personality": "nobody"}, 404, "Personality 'nobody' not found or disabled."),
        ({"binding_name": "nobody"}, 404, "Binding instance 'nobody' not found"),
        ({"binding_name": "strange"}, 503, "Binding instance 'strange' not available or failed to load."),
        ({"binding_name": "misspelt"}, 503, "Binding instance 'misspelt' not available or failed to load."),
        ({"model_name": "other"}, 503, "Binding 'echo' failed to load model 'other'."),
        (
            {"generation_type": "ttv"},
            400,
            "Could not determine binding instance for the request. Check defaults or request parameters.",
        ),
        ({"generation_type": "tti", "binding_name": "echo"}, 501, "Binding instance 'echo'"),
        ({"parameters": {"max_tokens": "many"}}, 400, "parameters.max_tokens"),
        (
            {"binding_name": "failing_first"},
            500,
            "Internal server error during generation: The dummy binding",
        ),
    ],
)
def test_given_something_wrong_before_the_first_byte_when_asked_then_the_error_is_json(
    generate: Generate, stream: bool, fields: dict[str, Any], status: int, detail: str
) -> None:
    response = generate("x", stream=stream, **fields)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["detail"]
    assert response.json()["detail"].startswith(detail)


@pytest.mark.parametrize("binding", ["failing", "crashing"])
def test_given_a_failure_in_the_middle_when_asked_then_500_says_what(
    generate: Generate, binding: str
) -> None:
    response = generate(binding_name=binding)
    assert response.status_code == 500
    assert response.json()["detail"].startswith("Internal server error during generation: ")


@pytest.mark.parametrize(
    ("body", "location"),
    [
        (b"", ["body"]),
        (b"{", ["body"]),
        (b"[]", ["body"]),
        (b"[" * 5000, ["body", 0]),
        (b"{}", ["body", "input_data"]),
        (b'{"input_data": []}', ["body", "input_data"]),
        (b'{"input_data": [{"type": "text", "data": "x"}]}', ["body", "input_data", 0, "role"]),
        (b'{"input_data": [{"type": "smell", "role": "r", "data": "x"}]}', ["body", "input_data", 0, "type"]),
        (b'{"text_prompt": "x", "parameters": []}', ["body", "parameters"]),
        (
            b'{"text_prompt": "x", "parameters": {"system_message": 1}}',
            ["body", "parameters", "system_message"],
        ),
        (b'{"text_prompt": "x", "generation_type": "dreams"}', ["body", "generation_type"]),
        (
            msgspec.json.encode({"input_data": [{"type": "image", "role": "r", "data": PNG64}]}),
            ["body", "input_data", 0, "mime_type"],
        ),
    ],
)
def test_given_a_wrong_body_when_posted_then_422_names_the_place(
    client: httpx.Client, body: bytes, location: list[str | int]
) -> None:
    response = client.post("/api/v1/generate", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422, response.text
    [problem] = response.json()["detail"]
    assert problem["loc"] == location
    assert problem.keys() == {"type", "loc", "msg", "input"}


def test_given_unknown_fields_when_posted_then_they_are_ignored(generate: Generate) -> None:
    assert output(generate("hi", colour="red", temperature=3))["data"] == "hi"


def test_given_a_client_that_leaves_when_nothing_was_sent_yet_then_the_work_ends(
    server: ServerProcess,
) -> None:
    for stream in (False, True):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{server.url}/api/v1/generate",
                json=prompt("x", binding_name="stuck", stream=stream),
                timeout=httpx.Timeout(LIMIT, read=0.5),
            )
        # the one GPU is free again: within the queue's two seconds, or this would be 408
        assert output(ask(server, "quick"))["data"] == "my turn"


def test_given_a_taken_gpu_when_the_wait_is_over_then_408_says_so(server: ServerProcess) -> None:
    body = prompt("x", binding_name="slow", stream=True)
    with httpx.stream("POST", f"{server.url}/api/v1/generate", json=body, timeout=LIMIT) as holder:
        pieces = holder.iter_raw()  # dropping it would close the connection
        next(pieces)
        response = ask(server, "quick")
    assert response.status_code == 408
    assert response.json()["detail"].startswith("Operation timed out: ")
    assert output(ask(server, "quick"))["data"] == "my turn"


def test_given_a_full_queue_when_asked_then_503_says_when_to_try_again() -> None:
    limits = {"max_running": 1, "max_waiting": 0}
    instances = {"slow": {"type": "dummy_binding", "chunks": ["a"] * 1000, "stream_chunk_delay": 0.05}}
    with ServerProcess({"resource_manager": limits}, instances) as server:
        body = prompt("x", binding_name="slow", stream=True)
        with httpx.stream("POST", f"{server.url}/api/v1/generate", json=body, timeout=LIMIT) as holder:
            pieces = holder.iter_raw()  # dropping it would close the connection
            next(pieces)
            response = ask(server, "slow")
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["detail"]


def test_given_many_requests_at_once_when_asked_then_none_gets_another_ones_answer(
    server: ServerProcess,
) -> None:
    texts = [f"number {n}" for n in range(30)]
    with httpx.Client(base_url=server.url, timeout=LIMIT) as client, ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda text: client.post("/api/v1/generate", json=prompt(text)), texts))
    assert [output(answer)["data"] for answer in answers] == texts
    assert len({answer.json()["request_id"] for answer in answers}) == len(texts)


def test_given_a_connection_cut_in_the_middle_of_a_body_when_sent_then_the_server_goes_on(
    server: ServerProcess,
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT) as raw:
        head = (
            f"POST /api/v1/generate HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 500\r\n\r\n"
        )
        raw.sendall(head.encode() + b'{"text_prompt":')
    assert output(ask(server, "echo"))["data"] == "my turn"
    assert "Traceback" not in server.log()


def ask(server: ServerProcess, binding: str) -> httpx.Response:
    return httpx.post(
        f"{server.url}/api/v1/generate", json=prompt("my turn", binding_name=binding), timeout=LIMIT
    )
