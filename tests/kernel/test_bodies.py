"""Reading a JSON body into a Struct: every wrong place is named, and nothing but ValidationFailed is raised."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.bodies import MAX_PROBLEMS, MAX_SHOWN, read_body
from lollms_kernel.errors import Problem, ValidationFailed
from lollms_kernel.rest.wire import DetokenizeBody, GenerateBody, TokenizeBody

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def problems_of(body: bytes, kind: type[msgspec.Struct] = GenerateBody) -> list[Problem]:
    with pytest.raises(ValidationFailed) as caught:
        read_body(body, kind)
    return list(caught.value.problems)


def test_given_a_valid_body_when_read_then_unknown_fields_are_ignored() -> None:
    body = read_body(b'{"text": "hi", "add_bos": true, "colour": "red"}', TokenizeBody)
    assert body == TokenizeBody(text="hi", add_bos=True)


@pytest.mark.parametrize(
    ("word", "value"), [("true", True), ('"true"', True), ("1", True), ('"false"', False)]
)
def test_given_a_truth_value_in_words_when_read_then_it_is_understood(word: str, value: bool) -> None:
    assert read_body(f'{{"text": "", "add_eos": {word}}}'.encode(), TokenizeBody).add_eos is value


@pytest.mark.parametrize(
    ("body", "kind", "location"),
    [
        (b"", "missing", ("body",)),
        (b"  \n", "missing", ("body",)),
        (b'{"text": ', "json_invalid", ("body",)),
        (b'{"text": }', "json_invalid", ("body", 9)),
        (b'{"text": "\xff"}', "json_invalid", ("body",)),
        (b'{"text": "\\ud800"}', "json_invalid", ("body",)),
        (b"[" * 100_000, "json_invalid", ("body", 0)),
        (b"[]", "model_attributes_type", ("body",)),
        (b'"text"', "model_attributes_type", ("body",)),
        (b"null", "model_attributes_type", ("body",)),
        (b"{}", "missing", ("body", "text")),
        (b'{"text": null}', "string_type", ("body", "text")),
        (b'{"text": "", "add_bos": "maybe"}', "bool_type", ("body", "add_bos")),
        (b'{"text": "", "model_name": 3}', "string_type", ("body", "model_name")),
    ],
)
def test_given_a_broken_body_when_read_then_the_place_is_named(
    body: bytes, kind: str, location: tuple[str | int, ...]
) -> None:
    [problem] = problems_of(body, TokenizeBody)
    assert (problem.type, problem.loc) == (kind, location)


@pytest.mark.parametrize(
    ("tokens", "location"),
    [("[1, 2, -1]", 2), ("[1.5]", 0), ('[1, "2"]', 1), (f"[{2**31}]", 0), ("[null]", 0)],
)
def test_given_a_list_with_a_wrong_item_when_read_then_the_item_is_named(tokens: str, location: int) -> None:
    [problem] = problems_of(f'{{"tokens": {tokens}}}'.encode(), DetokenizeBody)
    assert problem.loc == ("body", "tokens", location)


def test_given_many_wrong_places_when_read_then_all_are_told_at_once() -> None:
    body = {
        "input_data": [{"type": "smell", "role": 1}, 5, {"type": "text", "role": "user_prompt", "data": "x"}],
        "generation_type": "dreams",
        "stream": [],
        "parameters": "hot",
    }
    problems = problems_of(msgspec.json.encode(body))
    assert {problem.loc[1:] for problem in problems} == {
        ("input_data", 0, "type"),
        ("input_data", 0, "role"),
        ("input_data", 0, "data"),
        ("input_data", 1),
        ("generation_type",),
        ("stream",),
        ("parameters",),
    }
    allowed = next(problem for problem in problems if problem.loc == ("body", "generation_type"))
    assert allowed.type == "literal_error"
    assert "'ttt'" in allowed.msg and "'audio2audio'" in allowed.msg


def test_given_countless_wrong_items_when_read_then_the_answer_stays_short() -> None:
    body = msgspec.json.encode({"input_data": [0] * 100_000})
    assert len(problems_of(body)) == MAX_PROBLEMS


def test_given_a_long_wrong_value_when_read_then_it_is_not_sent_back_whole() -> None:
    body = msgspec.json.encode({"text": "", "add_bos": "x" * 100_000})
    [problem] = problems_of(body, TokenizeBody)
    assert isinstance(problem.input, str)
    assert len(problem.input) == MAX_SHOWN + 1


@given(st.binary(max_size=200))
def test_given_any_bytes_when_read_then_nothing_but_validation_failed_is_raised(body: bytes) -> None:
    read_or_refuse(body)


@given(JSON)
def test_given_any_json_when_read_then_nothing_but_validation_failed_is_raised(body: Any) -> None:
    read_or_refuse(msgspec.json.encode(body))


@given(st.dictionaries(st.sampled_from(GenerateBody.__struct_fields__), JSON))
def test_given_known_fields_with_any_json_when_read_then_the_problems_can_be_sent(body: Any) -> None:
    read_or_refuse(msgspec.json.encode(body))


def read_or_refuse(body: bytes) -> None:
    for kind in (GenerateBody, TokenizeBody, DetokenizeBody):
        try:
            value = read_body(body, kind)
        except ValidationFailed as refused:
            assert refused.problems
            msgspec.json.encode(refused.problems)
        else:
            assert isinstance(value, kind)
