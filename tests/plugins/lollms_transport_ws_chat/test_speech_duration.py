"""How long a text takes to say, and how much of it was said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lollms_transport_ws_chat.fragments import joined
from lollms_transport_ws_chat.speech_duration import said_within, spoken_seconds

GREETING = "Hello! How can I help you?"
LONGER = "Hello! I'm doing well, thank you for asking. How can I help you today?"
WORDS = st.lists(st.sampled_from("a of the river 42 mountain, sea. 你好 здравствуйте".split()), min_size=1)


def test_the_documents_examples_take_about_as_long_as_a_voice_does() -> None:
    assert spoken_seconds(GREETING) == pytest.approx(2.29, abs=0.1)
    assert spoken_seconds(LONGER) == pytest.approx(5.67, abs=0.2)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_more_words_take_longer(words: list[str], more: list[str]) -> None:
    shorter = spoken_seconds(" ".join(words))
    assert isinstance(shorter, float)
    assert 0 < shorter <= spoken_seconds(" ".join([*words, *more]))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("今天天气很好我们出去走走吧", 0.25 + 13 / 4.5),
        ("おはようございます", 0.25 + 9 / 7),
        ("안녕하세요", 0.25 + 5 / 5.5),
        ("Привет", 0.25 + 6 / 13.5),
        ("مرحبا", 0.25 + 5 / 9),
        ("1234567", 0.25 + 7 * 0.28),
        ("", 0.6),
        ("…", 0.6),
    ],
)
def test_every_script_has_its_own_speed(text: str, seconds: float) -> None:
    assert spoken_seconds(text) == pytest.approx(max(0.6, seconds), abs=0.002)


def test_code_and_addresses_are_not_read_aloud() -> None:
    said = spoken_seconds("Look here.")
    assert spoken_seconds("Look here. ```print('a very long program')```") == pytest.approx(said, abs=0.5)
    assert spoken_seconds("Look https://example.org/a/very/long/address here.") < said + 0.2
    assert spoken_seconds("``` never closed " + "x" * 500) == 0.6


def test_rate_and_bound() -> None:
    assert spoken_seconds(LONGER, rate=2.0) == pytest.approx(spoken_seconds(LONGER) / 2, abs=0.01)
    assert spoken_seconds(LONGER * 10, longest=12.0) == 12.0


def test_what_was_said_ends_with_a_whole_word() -> None:
    text = "one two three four five six seven eight nine ten"
    assert said_within(text, 0.0, whole=5.0) == ""
    assert said_within(text, 2.5, whole=5.0) == "one two three four five"
    assert said_within(text, 5.0, whole=5.0) == text
    assert said_within(text, 99.0, whole=5.0) == text
    assert said_within("今天天气很好我们出去走走", 2.0, whole=4.0) == "今天天气很好"
    assert said_within("", 1.0, whole=2.0) == ""


@settings(deadline=None)
@given(st.text(max_size=60), st.floats(0, 10), st.floats(0.1, 10))
def test_what_was_said_is_always_a_beginning(text: str, seconds: float, whole: float) -> None:
    assert text.startswith(said_within(text, seconds, whole=whole))


def test_pieces_are_joined_as_their_script_is_written() -> None:
    assert joined(["i want", "tea."]) == "i want tea."
    assert joined(["我想", "喝茶。"]) == "我想喝茶。"
    assert joined(["我想", "tea"]) == "我想 tea"
    assert joined(["おはよう", "ございます", "!"]) == "おはようございます !"
    assert joined([]) == ""
