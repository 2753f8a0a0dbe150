"""The YAML reader against broken and hostile files."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.config import yaml_format
from lollms_kernel.config.plain import MAX_VALUES
from lollms_kernel.config.yaml_format import parse_yaml
from lollms_kernel.errors import ConfigError

PARSERS = [yaml_format._PARSER, yaml.SafeLoader]


@pytest.fixture(params=PARSERS, ids=["c", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML: the C one may be missing on a machine."""
    monkeypatch.setattr(yaml_format, "_PARSER", request.param)


def error_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f.yaml")
    return caught.value.message


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, 2.5, true, null, '3']", {"a": 1, "b": ["x", 2.5, True, None, "3"]}),
        ("a: 2024-01-31", {"a": "2024-01-31"}),
        ("a: 2024-13-45", {"a": "2024-13-45"}),
        ("a: =", {"a": "="}),
        ("a: !!str 12", {"a": "12"}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("base: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"base": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        ("b: {q: 3, <<: [{p: 1}, {p: 2, q: 2, r: 2}]}", {"b": {"p": 1, "q": 3, "r": 2}}),
        ("'<<': 1", {"<<": 1}),
        ("", None),
    ],
)
def test_reads(text: str, value: Any) -> None:
    assert parse_yaml(text, "f.yaml") == value


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", 'f.yaml, line 3, column 1: the key "a" is there twice, first in line 1.'),
        ("x: {a: 1, a: 1}", 'line 1, column 11: the key "a" is there twice'),
        ("a: [1,\nb: 2", "that begins in line 1,"),
        ("a: 'b", "that begins in line 1, found unexpected end of stream."),
        ("a: b: c", "line 1, column 5: not valid YAML: mapping values are not allowed"),
        ("\ta: 1", "found character"),
        ("a: *b", "line 1, column 4: an alias of nothing; a text that begins with * needs quotes."),
        ("a: &x [*x]", "an alias of nothing"),
        ("a: &x {b: *x}", "an alias of nothing"),
        (
            "a: !secret b",
            "line 1, column 4: a tag that is not known; a text that begins with ! needs quotes.",
        ),
        ("a: !!python/object/apply:os.system [id]", "line 1, column 4: a tag that is not known here."),
        ("a: !!set {b: }", "a tag that is not known here."),
        ("a: !!int b", "line 1, column 4: not a valid int; put it in quotes if it is text."),
        ("a: !!bool b", "not a valid bool"),
        ("a: 0x_", "not a valid int"),
        (f"a: {'9' * 5000}", "line 1, column 4: a very long int; put it in quotes if it is text."),
        (f"a: 1{':1' * 400_000}", "a very long int"),
        ('"\\e[31m": 1\n"\\e[31m": 2', 'the key "\\x1b[31m" is there twice'),
        ("1: a", "line 1, column 1: a key that is not text; put it in quotes."),
        ("yes: a", "a key that is not text"),
        ("? [a]\n: b", "a key that is not text"),
        ("a: {<<: 1}", "<< takes a mapping"),
        ("a: 1\n---\nb: 2", "line 2, column 1: a second document begins"),
        ("a: 1\nb: \x01", "f.yaml, line 2: a character that YAML does not allow."),
    ],
)
def test_refuses_with_the_place(text: str, message: str) -> None:
    assert message in error_of(text)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "text", ["[" * 500_000, "{" * 500_000, "- " * 250_000, "{a: " * 100_000, "? " * 500_000]
)
def test_deep_nesting_is_refused_and_ends_no_process(text: str) -> None:
    assert "nested deeper than 32 levels" in error_of(text)


@pytest.mark.usefixtures("parser")
def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]

    assert f"more than {MAX_VALUES:,} values" in error_of("\n".join(lines))


@pytest.mark.usefixtures("parser")
def test_a_merge_bomb_is_refused() -> None:
    lines = ["a0: &a0 {b: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]

    assert f"more than {MAX_VALUES:,} values" in error_of("\n".join(lines))


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "text",
    [
        "key: *{}",
        "key: !{}",
        "key: !!{} x",
        "key: !{}!x y",
        "key: &{} [1]\nb: : c",
        "key: !!int {}",
        "key: '{}\n",
        'key: "{}\\q"',
        "key: %{}: : -",
        "key: @{}",
        "key: `{}`",
        "key: {} \x01",
        "key: {{{}",
        "%{} x\n---\n[",
        "%TAG !{} x",
        "<<: {}",
    ],
)
def test_errors_never_quote_what_the_file_says(text: str) -> None:
    assert "s3cr3tvalue" not in error_of(text.format("s3cr3tvalue"))


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_yaml(text, "f.yaml")
    except ConfigError as error:
        assert error.message.startswith("f.yaml")


words = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(words, plain, max_size=5))
def test_what_is_written_is_read_again(content: dict[str, Any]) -> None:
    assert parse_yaml(yaml.safe_dump(content, allow_unicode=True), "f.yaml") == content
