"""tokenize, detokenize and count_tokens of a live server; the dummy has one token for each UTF-8 byte."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from lollms_kernel.testing import ServerProcess


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("tokenize", {"text": "hé"}, {"tokens": [104, 195, 169], "count": 3}),
        ("tokenize", {"text": "", "binding_name": "echo"}, {"tokens": [], "count": 0}),
        (
            "tokenize",
            {"text": "h", "add_bos": True, "add_eos": True},
            {"tokens": [256, 104, 257], "count": 3},
        ),
        ("tokenize", {"text": "h", "binding_name": "", "model_name": ""}, {"tokens": [104], "count": 1}),
        ("tokenize", {"text": "h", "binding_name": "vision"}, {"tokens": [104], "count": 1}),
        ("tokenize", {"text": "h", "model_name": "echo-model"}, {"tokens": [104], "count": 1}),
        ("detokenize", {"tokens": [104, 195, 169]}, {"text": "hé"}),
        ("detokenize", {"tokens": []}, {"text": ""}),
        ("count_tokens", {"text": "hé"}, {"count": 3}),
        ("count_tokens", {"text": "hé", "add_bos": True}, {"count": 4}),
        ("tokenize", {"text": "h", "binding_name": "crashing"}, {"tokens": [104], "count": 1}),
    ],
)
def test_given_a_tokenizer_when_asked_then_it_answers(
    client: httpx.Client, path: str, body: dict[str, Any], answer: dict[str, Any]
) -> None:
    response = client.post(f"/api/v1/{path}", json=body)
    assert response.status_code == 200, response.text
    assert response.json() == answer


TEXT, TOKENS = {"text": "x"}, {"tokens": [1]}


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("tokenize", {**TEXT, "binding_name": "nobody"}, 404, "Binding instance 'nobody' not found."),
        ("tokenize", {**TEXT, "binding_name": "strange"}, 503, "Binding instance 'strange' not available"),
        ("tokenize", {**TEXT, "model_name": "other"}, 404, "'other'"),
        (
            "tokenize",
            {**TEXT, "binding_name": "mute"},
            501,
            "Binding instance 'mute' does not support tokenization.",
        ),
        (
            "detokenize",
            {**TOKENS, "binding_name": "mute"},
            501,
            "Binding instance 'mute' does not support detokenization.",
        ),
        (
            "count_tokens",
            {**TEXT, "binding_name": "mute"},
            501,
            "Binding instance 'mute' does not support tokenization required for counting.",
        ),
        ("detokenize", {"tokens": [999]}, 400, "999"),
    ],
)
def test_given_no_tokenizer_when_asked_then_the_error_says_why(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, detail: str
) -> None:
    response = client.post(f"/api/v1/{path}", json=body)
    assert response.status_code == status, response.text
    assert detail in response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "location"),
    [
        ("tokenize", b"{}", ["body", "text"]),
        ("tokenize", b'{"text": 5}', ["body", "text"]),
        ("tokenize", b"[]", ["body"]),
        ("tokenize", b"", ["body"]),
        ("count_tokens", b'{"text": "x", "add_eos": 7}', ["body", "add_eos"]),
        ("detokenize", b'{"tokens": [1, -1]}', ["body", "tokens", 1]),
        ("detokenize", b'{"tokens": "1"}', ["body", "tokens"]),
        ("detokenize", b"{", ["body"]),
    ],
)
def test_given_a_wrong_body_when_posted_then_422_names_the_place(
    client: httpx.Client, path: str, body: bytes, location: list[str | int]
) -> None:
    response = client.post(f"/api/v1/{path}", content=body)
    assert response.status_code == 422, response.text
    [problem] = response.json()["detail"]
    assert problem["loc"] == location
    assert problem.keys() == {"type", "loc", "msg", "input"}


def test_given_no_default_when_no_binding_is_named_then_400_says_so() -> None:
    with ServerProcess({}, {"lonely": {"type": "dummy_binding"}}) as server:
        for path, body in (("tokenize", TEXT), ("detokenize", TOKENS), ("count_tokens", TEXT)):
            response = httpx.post(f"{server.url}/api/v1/{path}", json=body)
            assert response.status_code == 400
            assert response.json()["detail"].startswith("No binding instance specified or configured.")
        response = httpx.post(f"{server.url}/api/v1/generate", json={"text_prompt": "x"})
        assert response.status_code == 400
        assert response.json()["detail"].startswith(
            "Could not determine binding instance for the request. Check defaults or request parameters."
        )
