"""Conversion of plain values into Structs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from lollms_kernel.config.decode import convert, examine
from lollms_kernel.contracts import InstanceSettings, Secret
from lollms_kernel.errors import ConfigError


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: Annotated[int, Meta(ge=1)]
    ratio: float = 0.5


class Settings(InstanceSettings, frozen=True, kw_only=True):
    api_key: Secret | None = None
    url: Annotated[str, Meta(min_length=3)] = "http://x"
    kind: Literal["cpu", "cuda", 3] = "cpu"
    inner: Inner | None = None
    many: list[Inner] = msgspec.field(default_factory=list)
    pair: tuple[int, str] = (1, "a")
    names: Annotated[tuple[str, ...], Meta(max_length=2)] = ()
    table: dict[str, Inner] = msgspec.field(default_factory=dict)
    either: int | list[str] = 1
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    folder: Path | None = None
    on: bool = True


BASE = {"type": "t", "binding_instance_name": "n"}


def error_of(raw: Any, type_: Any = Settings) -> str:
    with pytest.raises(ConfigError) as caught:
        convert(raw, type_, "x.yaml")
    return caught.value.message


def test_valid_values_become_the_struct() -> None:
    raw = {
        **BASE,
        "inner": {"size": 2, "ratio": 1},
        "table": {"a": {"size": 1}},
        "folder": "m",
        "extra": None,
    }

    settings = convert(raw, Settings, "x.yaml")

    assert settings.inner == Inner(size=2, ratio=1.0)
    assert settings.table == {"a": Inner(size=1)}
    assert settings.folder == Path("m")
    assert settings.extra == {}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"url": "x"}, 'x.yaml: url: is "x", must be text that is not empty.'),
        ({"kind": "cdua"}, 'x.yaml: kind: is "cdua", must be one of 3, cpu, cuda; did you mean `cuda`?'),
        ({"inner": {}}, "x.yaml: inner.size: is missing, must be an integer of at least 1."),
        ({"inner": 3}, "x.yaml: inner: is 3, must be a mapping of keys to values or null."),
        (
            {"many": [{"size": 1}, {"size": "1"}]},
            'x.yaml: many[1].size: is "1", must be an integer of at least 1: remove the quotes.',
        ),
        (
            {"many": {"size": 1}},
            "x.yaml: many: is a mapping, must be a list, each entry a mapping of keys to values.",
        ),
        ({"pair": [1]}, "x.yaml: pair: is a list, must be a list."),
        ({"names": ["a", "b", "c"]}, "x.yaml: names: is a list, must be a list, each entry text."),
        ({"names": None}, "x.yaml: names: is empty (null), must be a list, each entry text."),
        (
            {"table": {"a b": {"size": 0}}},
            'x.yaml: table."a b".size: is 0, must be an integer of at least 1.',
        ),
        ({"either": "x"}, 'x.yaml: either: is "x", must be an integer or a list, each entry text.'),
        ({"folder": 5}, "x.yaml: folder: is 5, must be a path or null."),
        ({"default_modle": "x"}, "x.yaml: default_modle: unknown key; did you mean `default_model`?"),
        ({"on": 1}, "x.yaml: on: is 1, must be true or false."),
        (
            {"api_key": 1234},
            "x.yaml: api_key: is a number (not shown), must be text or null: put it in quotes.",
        ),
        ({"url": "y" * 999, "on": "y" * 999}, "x.yaml: on: is "),
    ],
)
def test_an_error_names_place_value_and_what_is_allowed(change: dict[str, Any], line: str) -> None:
    message = error_of({**BASE, **change})

    assert message.startswith(line)
    assert len(message) < 300


def test_missing_keys_and_all_else_come_together() -> None:
    message = error_of({"many": [{}, {"size": 0}], "kidn": 1})

    assert message.startswith("x.yaml: 5 problems:")
    for line in ("type: is missing", "binding_instance_name: is missing", "many[0].size: is missing"):
        assert f"\n  {line}, must be " in message


def test_an_error_has_an_end() -> None:
    lines = error_of({**BASE, **{f"unknown{i}": i for i in range(1000)}}).splitlines()

    assert len(lines) == 102
    assert lines[0] == "x.yaml: 1000 problems:"
    assert lines[-1] == "  and 900 more."


def test_what_is_no_mapping_at_all_is_an_error() -> None:
    assert error_of([1]) == "x.yaml: is a list, must be a mapping of keys to values."


def test_a_key_with_control_characters_stays_on_its_line() -> None:
    message = error_of({**BASE, "a\nb\x1b[31m": 1})

    assert '"a\\nb\\x1b[31m": unknown key' in message


keys = st.sampled_from([*Settings.__struct_fields__, *Inner.__struct_fields__, "unknown"])
leaves = st.sampled_from([None, True, 0, 1, 2.5, "", "cpu", "text", float("nan"), -1])
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(keys, values))
def test_it_accepts_what_msgspec_accepts_and_nulls_for_mappings(change: dict[str, Any]) -> None:
    raw = {**BASE, **change}
    cleaned, faults = examine(raw, Settings)
    try:
        expected = msgspec.convert(raw, Settings, dec_hook=lambda type_, value: type_(value))
    except (msgspec.ValidationError, TypeError):
        expected = None

    if expected is not None:
        assert not faults
    if not faults:
        converted = convert(raw, Settings, "x.yaml")
        assert expected in (None, converted)
        assert convert(cleaned, Settings, "x.yaml") == converted
