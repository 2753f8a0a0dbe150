"""Functions in the forms that clients send."""

from __future__ import annotations

from lollms_kernel.types import GenerateRequest
from lollms_kernel.upstream import described_functions

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
