"""Generation parameters: what is accepted, and how the rest is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lollms_binding_llamacpp.gguf_header import GgufHeader
from lollms_binding_llamacpp.parameters import Sampling, model_defaults, read_sampling, unknown_parameters
from lollms_kernel.errors import InvalidRequest


def test_nothing_given_means_llama_cpps_defaults() -> None:
    assert read_sampling({}, {}) == Sampling()
    assert read_sampling({"temperature": None, "stop": None}, {}) == Sampling()


def test_the_request_wins_over_the_file() -> None:
    defaults = {"temperature": 0.0, "top_k": 1}
    assert read_sampling({"temperature": 1}, defaults) == Sampling(temperature=1.0, top_k=1)


@pytest.mark.parametrize(
    ("given_parameters", "expected"),
    [
        ({"n_predict": 5, "max_tokens": 1024}, {"max_tokens": 5}),
        ({"max_tokens": -1}, {"max_tokens": -1}),
        ({"top_k": 40.0}, {"top_k": 40}),
        ({"top_p": 1}, {"top_p": 1.0}),
        ({"seed": 4294967295}, {"seed": 4294967295}),
        ({"stop": "x"}, {"stop": ("x",)}),
        ({"stop_sequences": ["x", "", "y"]}, {"stop": ("x", "y")}),
        ({"stop": [], "stop_sequences": ["y"]}, {"stop": ()}),
        ({"logit_bias": {"5": 1, "word": -1.5}}, {"logit_bias": ((5, 1.0), ("word", -1.5))}),
        ({"logit_bias": [[5, False], ["5", 2]]}, {"logit_bias": ((5, float("-inf")), ("5", 2.0))}),
        ({"json_schema": {"type": "object"}}, {"json_schema": '{"type":"object"}'}),
        ({"grammar": "", "json_schema": "{}"}, {"json_schema": "{}"}),
        ({"temperature": -0.1, "top_p": 1.1, "min_p": -1}, {"temperature": 0.0, "top_p": 1.0, "min_p": 0.0}),
        (
            {"mirostat": 3, "top_k": -1, "xtc_probability": 2},
            {"mirostat": 2, "top_k": 0, "xtc_probability": 1.0},
        ),
        ({"ignore_eos": True, "cache_prompt": False}, {"ignore_eos": True, "cache_prompt": False}),
    ],
)
def test_accepted(given_parameters: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read_sampling(given_parameters, {}) == Sampling(**expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", -2),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("n_predict", "many"),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", 10**400),
        ("temperature", "0.5"),
        ("repeat_penalty", 0),
        ("mirostat_tau", float("inf")),
        ("seed", -2),
        ("seed", 2**32),
        ("seed", [1]),
        ("stop", 5),
        ("stop", [5]),
        ("stop", ["x"] * 65),
        ("stop", "x" * 513),
        ("logit_bias", 5),
        ("logit_bias", [[1, 2, 3]]),
        ("logit_bias", {"a": "b"}),
        ("logit_bias", {"a": True}),
        ("logit_bias", {"a": float("nan")}),
        ("logit_bias", [[1.5, 1]]),
        ("grammar", {"root": 1}),
        ("grammar", "x" * 300_000),
        ("ignore_eos", 1),
        ("cache_prompt", "no"),
    ],
)
def test_refused_naming_parameter_value_and_range(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_sampling({name: value}, {})
    assert f"parameters.{name}" in caught.value.message
    assert str(caught.value.hint).startswith("It must be ")


def test_grammar_and_schema_together_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        read_sampling({"grammar": "root ::= x", "json_schema": {}}, {})


def test_names_without_effect_are_told() -> None:
    assert unknown_parameters({"temprature": 1, "context_size": 4096, "top_k": 1, "width": None, "b": 2}) == [
        "b",
        "temprature",
    ]


def test_the_files_defaults_are_taken_where_they_make_sense() -> None:
    values = {"general.sampling.temp": 0.0, "general.sampling.top_k": 10, "general.sampling.top_p": 7.0}
    assert model_defaults(GgufHeader(values, {}, {})) == {"temperature": 0.0, "top_k": 10}


ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(some.dictionaries(some.sampled_from(sorted(Sampling.__struct_fields__)), ANYTHING))
def test_whatever_comes_is_read_or_refused(parameters: dict[str, Any]) -> None:
    try:
        sampling = read_sampling(parameters, {})
    except InvalidRequest as error:
        assert "parameters." in error.message or "Both" in error.message
    else:
        assert isinstance(sampling, Sampling)
