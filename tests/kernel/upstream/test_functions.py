"""Functions in the forms that clients send."""

from __future__ import annotations

import pytest

from lollms_kernel.types import GenerateRequest, ToolCall
from lollms_kernel.upstream import calls_in, described_functions

WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


def test_both_forms_of_a_description_give_the_inner_part() -> None:
    request = GenerateRequest(id="1", functions=({"type": "function", "function": WEATHER}, WEATHER))

    assert described_functions(request) == ([WEATHER, WEATHER], [])


def test_what_describes_nothing_is_reported() -> None:
    request = GenerateRequest(id="1", functions=("clock.now", 7, {"description": "no name"}, WEATHER))
    described, (notice,) = described_functions(request)

    assert described == [WEATHER]
    assert notice.code == "functions_ignored"
    assert notice.details["names"][0] == "clock.now"
    assert len(notice.details["names"]) == 3


def test_calls_that_a_client_sends_back_are_read() -> None:
    text = '{"tool_calls": [{"id": "a", "name": "f", "arguments": "{}"}, {"id": "b", "name": "g", "arguments": ""}]}'

    assert calls_in(text) == (ToolCall("a", "f", "{}", 0), ToolCall("b", "g", "", 1))


@pytest.mark.parametrize(
    "text", ["", "Hello", "{", "[]", '{"tool_calls": [{"id": 1}]}', '{"tool_calls": null}', "\ud800"]
)
def test_text_that_is_just_text_holds_no_calls(text: str) -> None:
    assert calls_in(text) == ()
