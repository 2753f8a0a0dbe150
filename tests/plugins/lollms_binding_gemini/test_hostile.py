"""Whatever a service answers and a client asks, the outcome is one of ours."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lollms_binding_gemini.contents import contents_of
from lollms_binding_gemini.failures import explain
from lollms_binding_gemini.parameters import read_wishes
from lollms_binding_gemini.proto_schema import simplified
from lollms_binding_gemini.sdk import Refused
from lollms_kernel.errors import InvalidRequest, LollmsError
from lollms_kernel.types import GenerateRequest, Message, ModelInfo
from lollms_kernel.upstream import Service

MARK = "said-by-the-service"
SERVICE = Service(name="Gemini", instance="x", address_setting="base_url", key_setting="google_api_key")
THINKER = ModelInfo(name="gemini-2.5-flash", details={"thinking": True})

words = st.sampled_from(
    "error message status details reason retryDelay violations quotaId code thinking limit: 0 7s API key".split()
)
json: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | words.map(lambda word: f"{word} {MARK}"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(
    "think thinking_budget json_schema response_format format tool_choice media_resolution".split()
)


@given(status=st.integers(300, 599), body=json)
def test_any_refusal_becomes_an_error_that_repeats_nothing(status: int, body: Any) -> None:
    error = explain(SERVICE, Refused(status, body, model="models/m"))

    assert isinstance(error, LollmsError)
    assert MARK not in error.detail


@given(parameters=st.dictionaries(names, json, max_size=3))
def test_any_parameters_are_read_or_refused(parameters: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        assert isinstance(read_wishes(parameters, THINKER, include_thoughts=True).config, dict)


@given(schema=json | st.dictionaries(st.sampled_from("type items properties enum required".split()), json))
def test_any_schema_becomes_one(schema: Any) -> None:
    message, whole = simplified(schema)

    assert isinstance(message["type"], str)
    assert isinstance(whole, bool)


@given(
    turns=st.lists(
        st.tuples(
            st.sampled_from(["user", "assistant", "tool", "system"]),
            st.text(max_size=20) | st.just('{"tool_calls": [{"id": "1", "name": "f", "arguments": "["}]}'),
        ),
        max_size=6,
    )
)
def test_any_conversation_is_one_that_the_service_takes(turns: list[tuple[Any, str]]) -> None:
    """Parts are never empty, and results follow calls of the same names."""
    messages = tuple(Message(role, content) for role, content in turns)
    try:
        contents = contents_of(GenerateRequest(id="r", messages=messages), [], signs=True)
    except InvalidRequest:
        return

    before: list[dict[str, Any]] = []
    for content in contents:
        parts = content["parts"]
        assert parts
        assert all(part != {"text": ""} for part in parts)
        answered = [part["function_response"]["name"] for part in parts if "function_response" in part]
        asked = [part["function_call"]["name"] for part in before if "function_call" in part]
        assert not answered or answered == asked
        before = parts
