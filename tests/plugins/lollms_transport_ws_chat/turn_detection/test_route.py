"""`POST /api/v1/turn_detection`, with the REST room's errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from lollms_kernel.rest.errors import exception_handlers
from lollms_kernel.testing import ServerProcess
from lollms_transport_ws_chat.turn_detection import (
    DetectorSettings,
    Judge,
    create_detector,
    turn_detection_route,
)
from lollms_transport_ws_chat.turn_detection.route import MAX_BODY, MAX_HISTORY, MAX_TEXT

PATH = "/api/v1/turn_detection"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Litestar]]:
    judge = Judge(create_detector(DetectorSettings(), Path("/")))
    app = Litestar([turn_detection_route(judge)], exception_handlers=exception_handlers, logging_config=None)
    with TestClient(app) as client:
        yield client
    judge.close()


def test_it_tells_probability_threshold_verdict_and_detector(client: TestClient[Litestar]) -> None:
    answer = client.post(PATH, json={"text": "what time is it"})

    assert answer.status_code == 200
    told = answer.json()
    assert told.keys() == {"probability", "threshold", "complete", "detector"}
    assert told["threshold"] <= told["probability"] <= 1
    assert (told["complete"], told["detector"]) == (True, "embedded")


def test_an_unfinished_turn_is_told(client: TestClient[Litestar]) -> None:
    told = client.post(PATH, json={"text": "i would like to book a", "language": "en"}).json()

    assert told["probability"] < told["threshold"]
    assert told["complete"] is False


def test_the_history_counts(client: TestClient[Litestar]) -> None:
    history = [{"role": "assistant", "content": "What's your phone number?"}]

    told = client.post(PATH, json={"text": "five five five", "history": history}).json()

    assert told["complete"] is False


@pytest.mark.parametrize(
    ("body", "location", "kind"),
    [
        ({}, ["body", "text"], "missing"),
        ({"text": 5}, ["body", "text"], "string_type"),
        ({"text": "x" * (MAX_TEXT + 1)}, ["body", "text"], "value_error"),
        ({"text": "x", "history": "y"}, ["body", "history"], "list_type"),
        ({"text": "x", "history": [{"role": "user"}]}, ["body", "history", 0, "content"], "missing"),
        (
            {"text": "x", "history": [{"role": "cat", "content": ""}]},
            ["body", "history", 0, "role"],
            "literal_error",
        ),
        (
            {"text": "x", "history": [{"role": "user", "content": ""}] * (MAX_HISTORY + 1)},
            ["body", "history"],
            "value_error",
        ),
        ({"text": "x", "language": "x" * 36}, ["body", "language"], "value_error"),
    ],
)
def test_what_is_wrong_with_a_body_is_told_in_its_place(
    client: TestClient[Litestar], body: Any, location: list[Any], kind: str
) -> None:
    answer = client.post(PATH, json=body)

    assert answer.status_code == 422, answer.text
    (problem,) = answer.json()["detail"]
    assert (problem["loc"], problem["type"]) == (location, kind)


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 60_000, b'{"text": "\xff"}', b"[]", b"null"])
def test_what_is_no_json_object_is_refused(client: TestClient[Litestar], body: bytes) -> None:
    answer = client.post(PATH, content=body)

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"


def test_a_body_that_is_too_large_is_refused(client: TestClient[Litestar]) -> None:
    body = msgspec.json.encode({"text": "x", "more": "y" * MAX_BODY})

    answer = client.post(PATH, content=body)

    assert answer.status_code == 413
    assert answer.json().keys() == {"detail"}


def test_a_server_answers_it_loads_the_engine_then_and_asks_for_a_key(tmp_path: Path) -> None:
    def engine_loaded(server: ServerProcess) -> bool:
        return "onnxruntime" in Path(f"/proc/{server.pid}/maps").read_text("utf-8")

    with ServerProcess({"security": {"allowed_api_keys": ["open-sesame"]}}, root=tmp_path) as server:
        at_start = engine_loaded(server)
        refused = httpx.post(server.url + PATH, json={"text": "good morning"})
        answer = httpx.post(
            server.url + PATH,
            json={"text": "i would like to book a"},
            headers={"X-API-Key": "open-sesame"},
            timeout=60,
        )
        wrong = httpx.post(server.url + PATH, json={"text": 1}, headers={"X-API-Key": "open-sesame"})
        in_use = engine_loaded(server)

    assert (refused.status_code, refused.json().keys()) == (403, {"detail"})
    assert (answer.status_code, answer.json()["detector"], answer.json()["complete"]) == (
        200,
        "embedded",
        False,
    )
    assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["body", "text"])
    assert (at_start, in_use) == (False, True)
