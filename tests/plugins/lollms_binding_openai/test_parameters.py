"""Every generation parameter by its name at the service; what it cannot take is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lollms_binding_openai.listing import Engine
from lollms_binding_openai.parameters import Mapped, map_parameters
from lollms_kernel.errors import InvalidRequest, LollmsError


def mapped(
    parameters: dict[str, Any], engine: Engine = "openai", model: str = "gpt-4o", extended: bool | None = None
) -> Mapped:
    return map_parameters(parameters, model, engine, extended)


def ignored(result: Mapped) -> list[str]:
    return [name for notice in result.notices for name in notice.details.get("names", ())]


PLAIN: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "presence_penalty": 0.1,
    "frequency_penalty": -0.1,
    "seed": 7,
    "stop": ["a", "b"],
    "logit_bias": {"50256": -100},
    "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "user": "u",
}


@pytest.mark.parametrize("name", sorted(PLAIN))
@pytest.mark.parametrize("engine", ["openai", "vllm", "llama-server", "other"])
def test_what_openai_knows_goes_to_everybody_under_its_name(name: str, engine: Engine) -> None:
    result = mapped({name: PLAIN[name]}, engine)

    assert result == Mapped({name: PLAIN[name]}, [])


@pytest.mark.parametrize(
    ("engine", "model", "field"),
    [
        ("openai", "gpt-4o", "max_completion_tokens"),
        ("openai", "gpt-5-mini", "max_completion_tokens"),
        ("other", "gpt-5-mini", "max_completion_tokens"),
        ("other", "openai/o3", "max_completion_tokens"),
        ("vllm", "Qwen/Qwen3-8B", "max_tokens"),
        ("llama-server", "m.gguf", "max_tokens"),
    ],
)
def test_the_limit_of_tokens_has_the_name_that_the_service_takes(
    engine: Engine, model: str, field: str
) -> None:
    assert mapped({"max_tokens": 9}, engine, model).fields == {field: 9}


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("llama-server", {"top_k": 5, "min_p": 0.1, "repeat_penalty": 1.1, "mirostat": 1}),
        ("vllm", {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}),
        ("openai", {}),
        ("other", {}),
    ],
)
def test_what_openai_does_not_know_goes_to_engines_that_do(engine: Engine, expected: dict[str, Any]) -> None:
    given = {"top_k": 5, "min_p": 0.1, "repeat_penalty": 1.1, "mirostat": 1}

    result = mapped(given, engine)

    theirs = {"repetition_penalty": "repeat_penalty"}
    assert result.fields == expected
    assert set(ignored(result)) == set(given) - {theirs.get(name, name) for name in expected}


def test_the_setting_sends_it_anywhere_or_nowhere() -> None:
    assert mapped({"top_k": 5}, "other", extended=True).fields == {"top_k": 5}
    assert mapped({"top_k": 5}, "vllm", extended=False).fields == {}


def test_models_that_think_first_get_no_classical_sampling() -> None:
    given = {"temperature": 0.5, "top_p": 0.9, "stop": ["x"], "seed": 1, "max_tokens": 5}

    result = mapped(given, model="gpt-5-mini")

    assert result.fields == {"seed": 1, "max_completion_tokens": 5}
    assert ignored(result) == ["stop", "temperature", "top_p"]
    assert mapped({"temperature": 0.5}, model="gpt-5-chat-latest").fields == {"temperature": 0.5}


def test_parameters_without_effect_are_named_and_the_kernel_s_own_are_not() -> None:
    result = mapped({"context_size": 4096, "max_tokens": None, "n": 2, "sampler": "x"})

    assert result.fields == {}
    assert ignored(result) == ["n", "sampler"]


def test_a_random_seed_is_not_sent() -> None:
    assert mapped({"seed": -1}) == Mapped({}, [])


def test_openai_takes_four_stop_texts_and_the_rest_is_noticed() -> None:
    result = mapped({"stop": list("abcdef")})

    assert result.fields == {"stop": list("abcd")}
    assert result.notices[0].details == {"stop": ["e", "f"]}
    assert mapped({"stop": list("abcdef")}, "vllm").fields == {"stop": list("abcdef")}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, False),
        (
            {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False},
            True,
        ),
        ('{"type": "string"}', True),
    ],
)
def test_a_schema_is_wrapped_and_strict_where_openai_allows_it(schema: Any, strict: bool) -> None:
    response_format = mapped({"json_schema": schema}).fields["response_format"]

    assert response_format["type"] == "json_schema"
    assert response_format["json_schema"]["strict"] is strict


def test_a_schema_that_is_already_wrapped_stays_as_it_is() -> None:
    wrapped = {"name": "person", "schema": {"type": "object"}, "strict": False}

    assert mapped({"json_schema": wrapped}).fields["response_format"]["json_schema"] == wrapped


def test_extra_fields_are_added_last_but_never_what_makes_the_request() -> None:
    assert mapped({"temperature": 1, "extra_body": {"chatId": "c", "temperature": 0}}).fields == {
        "temperature": 0,
        "chatId": "c",
    }
    for name in ("model", "messages", "prompt", "stream", "stream_options"):
        with pytest.raises(InvalidRequest, match=name):
            mapped({"extra_body": {name: "other"}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"logit_bias": {"hello": 1}},
        {"logit_bias": [["1", 101]]},
        {"logit_bias": "x"},
        {"response_format": "json"},
        {"json_schema": "{"},
        {"json_schema": 3},
        {"extra_body": [1]},
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        mapped(wrong)
    assert next(iter(wrong)) in caught.value.message
    assert caught.value.hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["logit_bias", "response_format", "json_schema", "extra_body"]), JSON)
def test_whatever_is_sent_is_taken_or_refused_in_our_words(name: str, value: Any) -> None:
    try:
        assert isinstance(mapped({name: value}).fields, dict)
    except LollmsError as error:
        assert name in error.message
