"""What the network sees: numbers and letters at the end, what was asked, and the last words in their places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_transport_ws_chat.turn_detection import Turn
from lollms_transport_ws_chat.turn_detection.features import (
    GLOBALS,
    PER_WORD,
    POSITIONS,
    START,
    UNKNOWN,
    digits_at_end,
    featurised,
    letters_at_end,
    word_ids,
)
from lollms_transport_ws_chat.turn_detection.history import Expected, expected_answer


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("my number is", 0),
        ("it is five five five", 3),
        ("double two nine", 3),
        ("triple seven", 3),
        ("forty two", 2),
        ("nineteen eighty", 4),
        ("twenty", 2),
        ("four nine one six three", 5),
        ("at 2048", 4),
        ("555 1234", 7),
        ("oh seven nine", 3),
        ("q four seven", 2),
        ("five apples", 0),
        ("triple triple triple", 6),
    ],
)
def test_digits_at_the_end_are_counted_as_written(text: str, count: int) -> None:
    assert digits_at_end(text.split()) == count


@pytest.mark.parametrize(
    ("text", "count"), [("it's k o w", 3), ("a", 1), ("plan b or", 0), ("x 5", 0), ("", 0)]
)
def test_letters_at_the_end_are_counted(text: str, count: int) -> None:
    assert letters_at_end(text.split()) == count


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", Expected.ANYTHING),
        ("I have turned it off.", Expected.STATEMENT),
        ("Do you want me to try again?", Expected.YES_OR_NO),
        ("Tea or coffee?", Expected.WHICH),
        ("Done. Which one do you prefer?", Expected.WHICH),
        ("Hello! How can I help you?", Expected.OPEN),
        ("Anything else?", Expected.OPEN),
        ("May I have your name, please?", Expected.NAME),
        ("How do you spell that?", Expected.SPELLING),
        ("What's your e-mail address?", Expected.EMAIL),
        ("Could you give me your phone number?", Expected.PHONE),
        ("And your ZIP code?", Expected.POSTCODE),
        ("Please read me the order number.", Expected.CODE),
        ("What is your card number?", Expected.CARD),
        ("What's your date of birth?", Expected.DATE),
        ("Which year was that?", Expected.YEAR),
        ("How many people?", Expected.AMOUNT),
        ("At what time?", Expected.CLOCK),
    ],
)
def test_what_the_assistant_asked_tells_what_to_expect(asked: str, expected: Expected) -> None:
    assert expected_answer([Turn("assistant", asked), Turn("user", "well")]) is expected


def test_only_the_turn_just_before_counts() -> None:
    history = [Turn("assistant", "What's your name?"), Turn("user", "Ann"), Turn("user", "and")]

    assert expected_answer(history) is Expected.ANYTHING
    assert expected_answer([]) is Expected.ANYTHING


def test_words_stand_at_the_end_and_the_first_ones_are_kept() -> None:
    numbers = {f"w{n}": 10 + n for n in range(30)}

    short = word_ids(["w1", "strange"], numbers)
    long = word_ids(list(numbers), numbers)

    assert [row[0] for row in short[-3:]] == [START, 11, UNKNOWN]
    assert [row[0] for row in long] == [START, 10, 11, 12, *range(24, 40)]
    assert len(short) == len(long) == POSITIONS


@given(st.text(max_size=300), st.text(max_size=100))
def test_whatever_is_said_has_ids_in_their_ranges(said: str, asked: str) -> None:
    words, whole = featurised([Turn("assistant", asked), Turn("user", said)], {})

    assert len(words) == POSITIONS
    assert all(len(row) == PER_WORD for row in words)
    assert all(0 <= value < size for value, size in zip(whole, GLOBALS, strict=True))
