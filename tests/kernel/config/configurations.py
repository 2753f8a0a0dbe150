"""Plain values as hypothesis makes them for configuration files."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [
        "yes",
        "null",
        "~",
        "1_000",
        "0o14",
        "1e3",
        "12:30",
        "2024-01-31",
        "<<",
        "=",
        "# no",
        "a: b",
        "- x",
        "x\r\ny",
    ]
)
"""Texts that need care somewhere; only those stay away that stand for null in TOML."""

numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
scalars = texts | numbers | st.booleans() | st.none()
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
mappings = st.dictionaries(texts, values, max_size=4)
