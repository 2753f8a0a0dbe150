"""POST /api/v1/generate with `stream: true`, on a live server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from lollms_kernel.testing import ServerProcess

from .conftest import INSTANCES, LIMIT, prompt, read_events

Events = Callable[..., list[dict[str, Any]]]


def test_given_a_prompt_when_streamed_then_headers_and_framing_are_the_published_ones(
    client: httpx.Client,
) -> None:
    response = client.post("/api/v1/generate", json=prompt("Hello there", stream=True))
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["transfer-encoding"] == "chunked"
    assert "cache-control" not in response.headers
    assert response.content.startswith(
        b'data: {"type":"chunk","content":"Hello","thoughts":null,"metadata":{}}\n\n'
        b'data: {"type":"chunk","content":" there","thoughts":null,"metadata":{}}\n\n'
        b'data: {"type":"final","content":[{"type":"text","data":"Hello there","mime_type":null,"thoughts":null,'
    )
    final = read_events(response.content)[-1]
    assert list(final["metadata"]) == ["request_id"]
    assert len(final["metadata"]["request_id"]) == 16
    assert final["content"][0]["metadata"]["binding_instance"] == "echo"
    assert final["content"][0]["metadata"]["usage"]["completion_tokens"] == 11


def test_given_a_stream_when_read_then_pieces_come_as_they_are_made(server: ServerProcess) -> None:
    started = time.monotonic()
    body = prompt("x", binding_name="slow", stream=True)
    with httpx.stream("POST", f"{server.url}/api/v1/generate", json=body, timeout=LIMIT) as response:
        pieces = response.iter_raw()
        first = next(pieces) + next(pieces)
    assert b'"content":"word "' in first
    # all of it takes 50 seconds
    assert time.monotonic() - started < LIMIT


def test_given_text_beyond_ascii_when_streamed_then_it_arrives_whole(events: Events) -> None:
    text = "żółć \u2028 line\n\ndata: fake\r\n 日本 🎉"
    streamed = events(text)
    assert "".join(event["content"] for event in streamed[:-1]) == text
    assert streamed[-1]["content"][0]["data"] == text


def test_given_a_binding_that_does_not_stream_when_streamed_then_one_piece_and_a_final_come(
    events: Events,
) -> None:
    streamed = events(binding_name="whole")
    assert [event["type"] for event in streamed] == ["chunk", "final"]
    assert streamed[0]["content"] == "all at once"


def test_given_thoughts_when_streamed_then_they_are_never_in_the_content(events: Events) -> None:
    streamed = events(binding_name="thinker")
    told = [(event["content"], event["thoughts"]) for event in streamed[:-1]]
    assert [thoughts for _, thoughts in told if thoughts] == ["x y"]
    assert "".join(content or "" for content, _ in told) == "a  b c"
    assert all(content is None for content, thoughts in told if thoughts)
    [output] = streamed[-1]["content"]
    assert (output["data"], output["thoughts"]) == ("a  b c", "x y")


def test_given_a_thought_that_never_ends_when_streamed_then_it_is_told_at_the_end(events: Events) -> None:
    streamed = events(binding_name="brooder")
    thoughts = "--- Incomplete Thought Block ---\n\nnever ends"
    assert [(event["content"], event["thoughts"]) for event in streamed[:-1]] == [
        ("a ", None),
        (None, thoughts),
    ]
    assert streamed[-1]["content"][0]["thoughts"] == thoughts


def test_given_an_image_when_streamed_then_it_is_in_the_final_event(events: Events) -> None:
    streamed = events("a cat", generation_type="tti")
    [output] = streamed[-1]["content"]
    assert (output["type"], output["mime_type"]) == ("image", "image/png")
    assert output["metadata"]["model"] == "paint-model"
    assert output.keys() == {"type", "data", "mime_type", "thoughts", "metadata"}


def test_given_a_notice_when_streamed_then_it_is_in_the_final_metadata(client: httpx.Client) -> None:
    items = [{"type": "text", "role": "horoscope", "data": "x"}, *prompt("hi")["input_data"]]
    response = client.post("/api/v1/generate", json={"input_data": items, "stream": True})
    [output] = read_events(response.content)[-1]["content"]
    assert [notice["code"] for notice in output["metadata"]["notices"]] == ["input_ignored"]


@pytest.mark.parametrize(
    ("binding", "code"), [("failing", "generation_failed"), ("crashing", "worker_crashed")]
)
def test_given_a_failure_in_the_middle_when_streamed_then_an_error_event_is_the_last(
    events: Events, binding: str, code: str
) -> None:
    streamed = events(binding_name=binding)
    assert [event["type"] for event in streamed] == ["chunk", "chunk", "error"]
    assert [event["content"] for event in streamed[:2]] == ["a", "b"]
    error = streamed[-1]
    assert isinstance(error["content"], str) and error["content"]
    assert error["metadata"]["code"] == code
    assert len(error["metadata"]["request_id"]) == 16


def test_given_a_crashed_worker_when_asked_again_then_it_serves_again(events: Events) -> None:
    for _ in range(2):
        assert events(binding_name="crashing")[0]["content"] == "a"


def test_given_a_client_that_leaves_when_streaming_then_the_work_ends(server: ServerProcess) -> None:
    body = prompt("x", binding_name="slow", stream=True)
    with httpx.stream("POST", f"{server.url}/api/v1/generate", json=body, timeout=LIMIT) as response:
        next(response.iter_raw())
    # the one GPU is free again: within the queue's two seconds, or this would be 408
    after = httpx.post(
        f"{server.url}/api/v1/generate", json=prompt("hi", binding_name="quick"), timeout=LIMIT
    )
    assert after.status_code == 200


def test_given_a_client_that_reads_nothing_when_it_leaves_then_the_work_ends(server: ServerProcess) -> None:
    more_than_sockets_hold = ("x" * 1000 + " ") * 24_000
    body = prompt(more_than_sockets_hold, binding_name="quick", stream=True)
    with httpx.stream("POST", f"{server.url}/api/v1/generate", json=body, timeout=LIMIT) as response:
        assert response.status_code == 200
    after = httpx.post(
        f"{server.url}/api/v1/generate", json=prompt("hi", binding_name="quick"), timeout=LIMIT
    )
    assert after.status_code == 200


def test_given_an_open_stream_when_the_server_stops_then_the_stream_ends_with_an_event() -> None:
    config = {"server": {"shutdown_grace": 0.2}}
    with ServerProcess(config, {"slow": INSTANCES["slow"]}) as server:
        body = prompt("x", binding_name="slow", stream=True)
        with httpx.stream("POST", f"{server.url}/api/v1/generate", json=body, timeout=LIMIT) as response:
            pieces = response.iter_bytes()
            received = next(pieces)
            assert server.stop() == 0
            received += b"".join(pieces)
    last = read_events(received)[-1]
    assert (last["type"], last["metadata"]["code"]) == ("error", "shutting_down")
