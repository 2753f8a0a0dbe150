"""Paths of keys, as users write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.config.places import Place, drop, leaves, parse_place, put, spell, value_at
from lollms_kernel.errors import ConfigError

from .configurations import mappings

names = st.text(st.characters(exclude_categories=["Cs"]))
places = st.tuples(names, st.lists(names | st.integers(0, 999_999), max_size=4)).map(lambda p: (p[0], *p[1]))


@given(places)
def test_what_is_spelled_is_parsed(place: Place) -> None:
    assert parse_place(spell(place)) == place


@given(st.text())
def test_any_text_is_a_place_or_a_clear_error(text: str) -> None:
    try:
        assert parse_place(spell(parse_place(text))) == parse_place(text)
    except ConfigError as error:
        assert "is no path of a key" in error.message
        assert len(error.message) < 1000


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("server.port", ("server", "port")),
        ("security.allowed_api_keys[12].name", ("security", "allowed_api_keys", 12, "name")),
        ('bindings_map."my.model"', ("bindings_map", "my.model")),
        ('"a \\" b".c', ('a " b', "c")),
        ("__version__", ("__version__",)),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "[0]", "a[", "a[-1]", "a b", 'a"b"', '"a', "a[0]b"]
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ConfigError, match="is no path of a key"):
        parse_place(text)


@given(mappings)
def test_leaves_are_where_they_say(content: dict[str, Any]) -> None:
    for place, value in leaves(content):
        assert value_at(content, place) is value or value_at(content, place) == value


def test_sections_on_the_way_are_created_also_in_place_of_null() -> None:
    values: dict[str, Any] = {"a": None, "l": [1]}

    put(values, ("a", "b", "c"), 1)
    put(values, ("l", 1), 2)
    put(values, ("l", 0), 0)
    drop(values, ("l", 1))

    assert values == {"a": {"b": {"c": 1}}, "l": [0]}


@pytest.mark.parametrize(
    "place", [("a", "b"), ("l", "x"), ("l", 5), ("a", 0), ("l", 0, "x"), ("a", "b", "c")]
)
def test_what_is_in_the_way_is_told(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"cannot be set: .* is neither a section nor a list"):
        put({"a": 1, "l": [1]}, place, 2)
