"""Text from token bytes, and stop strings: the result never depends on how the bytes were split."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from lollms_binding_llamacpp.text import StopStrings, Utf8Stream


def in_pieces(whole: bytes | str, cuts: list[int]) -> list[bytes | str]:
    places = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    return [whole[start:end] for start, end in pairwise(places)]


def through_stops(stops: list[str], pieces: list[bytes | str]) -> tuple[str, str | None]:
    matcher = StopStrings(stops)
    shown = "".join(matcher.feed(str(piece)) for piece in pieces)
    return shown + matcher.finish(), matcher.matched


@given(some.text(), some.lists(some.integers(0)))
def test_utf8_comes_out_as_it_went_in_however_it_is_split(text: str, cuts: list[int]) -> None:
    text = text.encode("utf-8", "replace").decode()
    stream = Utf8Stream()
    assert "".join(stream.feed(bytes(piece)) for piece in in_pieces(text.encode(), cuts)) == text  # type: ignore[arg-type]


@given(some.binary(), some.lists(some.integers(0)))
def test_bytes_that_are_no_utf8_do_no_harm_and_do_not_depend_on_the_split(
    data: bytes, cuts: list[int]
) -> None:
    split, whole = Utf8Stream(), Utf8Stream()
    assert "".join(split.feed(bytes(piece)) for piece in in_pieces(data, cuts)) == whole.feed(data)  # type: ignore[arg-type]


SHORT = some.text("ab<|>", max_size=30)
STOPS = some.lists(some.text("ab<|>", max_size=4), max_size=4)


@given(SHORT, STOPS, some.lists(some.integers(0)))
def test_stop_strings_do_not_depend_on_the_split(text: str, stops: list[str], cuts: list[int]) -> None:
    assert through_stops(stops, in_pieces(text, cuts)) == through_stops(stops, list(text))


@given(SHORT, STOPS, some.lists(some.integers(0)))
def test_nothing_is_lost_and_no_stop_string_shows(text: str, stops: list[str], cuts: list[int]) -> None:
    shown, matched = through_stops(stops, in_pieces(text, cuts))
    if matched is None:
        assert shown == text
    else:
        assert text.startswith(shown + matched)
    assert not any(stop in shown for stop in stops if stop)


def test_text_is_held_back_only_as_long_as_it_may_be_a_stop_string() -> None:
    matcher = StopStrings(["User:"])
    assert matcher.feed("Hello Use") == "Hello "
    assert matcher.feed("ful") == "Useful"
    assert matcher.feed(" U") == " "
    assert matcher.feed("ser: me too") == ""
    assert matcher.matched == "User:"
    assert matcher.feed("more") == ""
