"""Each parameter under the protocol's name, and a notice for what has no effect."""

from __future__ import annotations

from typing import Any

import pytest

from lollms_binding_gemini.parameters import read_wishes
from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import ModelInfo

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
JSON = {"response_mime_type": "application/json"}
PLAIN = ModelInfo(name="gemini-2.0-flash", max_output_tokens=8192)
THINKER = ModelInfo(name="gemini-2.5-flash", max_output_tokens=65536, details={"thinking": True})


@pytest.mark.parametrize(
    ("given", "config"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"temperature": 0, "top_p": 0.5, "top_k": 3}, {"temperature": 0, "top_p": 0.5, "top_k": 3}),
        (
            {"presence_penalty": 0.1, "frequency_penalty": -1},
            {"presence_penalty": 0.1, "frequency_penalty": -1},
        ),
        ({"seed": 7}, {"seed": 7}),
        ({"seed": -1}, {}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"format": "json"}, JSON),
        ({"format": ""}, {}),
        ({"json_schema": SCHEMA}, {**JSON, "response_json_schema": SCHEMA}),
        ({"json_schema": '{"type": "object"}'}, {**JSON, "response_json_schema": {"type": "object"}}),
        ({"json_schema": {"name": "x", "schema": SCHEMA}}, {**JSON, "response_json_schema": SCHEMA}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, JSON),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
            {**JSON, "response_json_schema": SCHEMA},
        ),
        ({"media_resolution": "low"}, {"media_resolution": "MEDIA_RESOLUTION_LOW"}),
        ({"context_size": 4096, "temperature": None}, {}),
        ({"think": False}, {}),
    ],
)
def test_what_is_sent(given: dict[str, Any], config: dict[str, Any]) -> None:
    wishes = read_wishes(given, PLAIN, include_thoughts=True)

    assert wishes.config == config
    assert wishes.notices == []


@pytest.mark.parametrize(
    ("given", "config"),
    [
        ({}, {"include_thoughts": True}),
        ({"think": True}, {"include_thoughts": True}),
        ({"think": False}, {"thinking_budget": 0}),
        ({"think": "low"}, {"thinking_level": "LOW", "include_thoughts": True}),
        ({"thinking_budget": 0}, {"thinking_budget": 0}),
        ({"thinking_budget": -1}, {"thinking_budget": -1, "include_thoughts": True}),
        ({"thinking_budget": 512}, {"thinking_budget": 512, "include_thoughts": True}),
    ],
)
def test_how_much_a_model_thinks(given: dict[str, Any], config: dict[str, Any]) -> None:
    assert read_wishes(given, THINKER, include_thoughts=True).config == {"thinking_config": config}


def test_thoughts_are_not_asked_for_where_the_instance_does_not_want_them() -> None:
    assert read_wishes({}, THINKER, include_thoughts=False).config == {}


@pytest.mark.parametrize(
    ("given", "codes", "config"),
    [
        ({"repeat_penalty": 1.1, "min_p": 0.1}, ["parameters_ignored"], {}),
        ({"max_tokens": 9999}, ["max_tokens_reduced"], {"max_output_tokens": 8192}),
        ({"stop": list("abcdefg")}, ["stop_texts_ignored"], {"stop_sequences": list("abcde")}),
        ({"think": "high"}, ["think_ignored"], {}),
        ({"thinking_budget": 99}, ["think_ignored"], {}),
    ],
)
def test_what_is_done_differently_is_said(
    given: dict[str, Any], codes: list[str], config: dict[str, Any]
) -> None:
    wishes = read_wishes(given, PLAIN, include_thoughts=True)

    assert [notice.code for notice in wishes.notices] == codes
    assert wishes.config == config


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "f"}},
            {"mode": "ANY", "allowed_function_names": ["f"]},
        ),
    ],
)
def test_the_choice_of_functions(choice: Any, sent: dict[str, Any]) -> None:
    assert read_wishes({"tool_choice": choice}, PLAIN, include_thoughts=True).function_calling == sent


@pytest.mark.parametrize(
    "given",
    [
        {"seed": 2**31},
        {"think": "a lot"},
        {"think": 7},
        {"thinking_budget": -2},
        {"thinking_budget": True},
        {"json_schema": "{"},
        {"json_schema": 5},
        {"response_format": {"type": "xml"}},
        {"response_format": "json"},
        {"format": ["json"]},
        {"tool_choice": "perhaps"},
        {"tool_choice": {"function": {}}},
        {"media_resolution": "huge"},
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(InvalidRequest, match=f"parameters.{name} is"):
        read_wishes(given, THINKER, include_thoughts=True)
