"""Every format holds every configuration: written, read, edited and converted without a loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lollms_kernel.config.formats import FORMATS, Format, parse_mapping
from lollms_kernel.config.store import read, same

from .configurations import mappings, texts, values

formats = pytest.mark.parametrize("form", FORMATS, ids=[form.name for form in FORMATS])


@formats
@given(content=mappings)
def test_what_is_written_is_read(form: Format, content: dict[str, Any]) -> None:
    path = Path(f"main_config{form.extensions[0]}")

    assert same(parse_mapping(form.write(content), path), content)


@formats
@settings(max_examples=60)
@given(
    content=mappings, edits=st.lists(st.tuples(st.lists(texts, min_size=1, max_size=3), values), max_size=5)
)
def test_what_is_edited_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    form: Format,
    content: dict[str, Any],
    edits: list[tuple[list[str], Any]],
) -> None:
    path = tmp_path_factory.mktemp("edit") / f"file{form.extensions[0]}"
    path.write_bytes(form.write(content))
    document = read(path)
    wanted = content
    for names, value in edits:
        wanted = with_value(wanted, names, value)

    document.become(wanted)
    document.save()

    assert same(parse_mapping(path.read_bytes(), path), wanted)


@formats
@settings(max_examples=60)
@given(content=mappings, wanted=mappings)
def test_a_file_becomes_any_other_configuration(
    tmp_path_factory: pytest.TempPathFactory, form: Format, content: dict[str, Any], wanted: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("become") / f"file{form.extensions[0]}"
    path.write_bytes(form.write(content))
    document = read(path)

    document.become(wanted)
    document.save()

    assert same(read(path).values, wanted)


def with_value(content: dict[str, Any], names: list[str], value: Any) -> dict[str, Any]:
    """A copy with the value at a place, whatever was there before."""
    first, *rest = names
    inner = content.get(first)
    if rest:
        value = with_value(inner if isinstance(inner, dict) else {}, rest, value)
    return {**content, first: value}
