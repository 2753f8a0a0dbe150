"""The thoughts parser gives the same result however the text is split."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.thoughts import ThoughtParser
from lollms_kernel.types import TextDelta, ThoughtDelta

PIECES = [
    "<think>",
    "</think>",
    "<THINK>",
    "</Think>",
    "<",
    "</",
    "<thi",
    "nk>",
    "a",
    " b ",
    "\n",
    "é",
    "<think",
    ">",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=30).map("".join)


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def parse(pieces: list[str]) -> tuple[str, dict[int, str], dict[int, str]]:
    parser = ThoughtParser()
    deltas = [delta for piece in pieces for delta in parser.feed(piece)] + parser.finish()
    visible = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    blocks: dict[int, str] = {}
    ends: dict[int, str] = {}
    for delta in deltas:
        if isinstance(delta, ThoughtDelta):
            assert delta.block not in ends, "nothing follows the end of a block"
            blocks[delta.block] = blocks.get(delta.block, "") + delta.text
            if delta.end:
                ends[delta.block] = delta.end
    assert ends.keys() == blocks.keys(), "every block ends exactly once"
    return visible, blocks, ends


@given(texts, st.lists(st.integers(0, 1000), max_size=20))
def test_any_split_of_any_text_gives_the_same_result(text: str, cuts: list[int]) -> None:
    assert parse(split(text, cuts)) == parse([text])


@given(texts)
def test_character_by_character_equals_the_reference_expression(text: str) -> None:
    visible, blocks, ends = parse(list(text))
    closed = re.findall(r"<think>(.*?)</think>", text, re.DOTALL | re.IGNORECASE)
    rest = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL | re.IGNORECASE)
    head, tag, tail = rest, "", ""
    opened = re.search(r"<think>", rest, re.IGNORECASE)
    if opened and "incomplete" in ends.values():
        head, tail = rest[: opened.start()], rest[opened.end() :]
        tag = "incomplete"
    assert visible == head
    assert list(blocks.values()) == [*closed, *([tail] if tag else [])]


def test_text_without_tags_is_handed_on_at_once() -> None:
    parser = ThoughtParser()
    assert parser.feed("hello ") == [TextDelta("hello ")]
    assert parser.feed("1 < 2") == [TextDelta("1 < 2")]
    assert parser.finish() == []


def test_tags_of_any_case_split_over_pieces_are_found() -> None:
    visible, blocks, ends = parse(["a <th", "ink>x</THI", "NK> b <THINK>y</think> c"])
    assert visible == "a  b  c"
    assert blocks == {0: "x", 1: "y"}
    assert set(ends.values()) == {"closed"}


def test_a_block_that_never_closes_is_all_thought_and_says_so() -> None:
    assert parse(["a<think>rest"]) == ("a", {0: "rest"}, {0: "incomplete"})


def test_a_lone_closing_tag_is_text() -> None:
    assert parse(["a</think>b"]) == ("a</think>b", {}, {})
