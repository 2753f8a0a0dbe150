"""The rule, in its languages, and the detector that only looks at the final mark."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lollms_transport_ws_chat.turn_detection import Turn
from lollms_transport_ws_chat.turn_detection.languages import NAMES, guessed, known_code, language
from lollms_transport_ws_chat.turn_detection.normalise import MAX_CHARACTERS, normalised
from lollms_transport_ws_chat.turn_detection.punctuation import PunctuationDetector, final_mark
from lollms_transport_ws_chat.turn_detection.rule import RuleDetector, spoken_language


def complete(text: str, code: str | None = None) -> bool:
    rule = RuleDetector()
    return rule.probability([Turn("user", text)], code) >= rule.threshold


@pytest.mark.parametrize(
    ("code", "whole", "open_"),
    [
        ("en", "water the plants", "water the"),
        ("de", "gieß bitte die blumen", "gieß bitte die"),
        ("de", "ruf mich später an", "er denkt an"),
        ("fr", "arrose les plantes", "arrose les"),
        ("fr", "où es-tu", "où est le"),
        ("es", "riega las plantas", "riega las"),
        ("it", "annaffia le piante", "annaffia le"),
        ("pt", "rega as plantas", "rega as"),
        ("zh", "请给花浇水", "请给"),
        ("ja", "花に水をやって", "花に水を"),
    ],
)
def test_a_turn_goes_on_after_a_word_that_needs_another(code: str, whole: str, open_: str) -> None:
    assert complete(whole, code)
    assert not complete(open_, code)


@pytest.mark.parametrize("said", ["I do", "yes please", "come in", "hmm", "Who?"])
def test_some_whole_turns_end_like_open_ones(said: str) -> None:
    assert complete(said, "en")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("well, i was…", False),
        ("well, i was...", False),
        ("the first one,", False),
        ("wait -", False),
        ("What is it for?", True),
        ('She said "stop."', True),
        ("i'd like the", False),
    ],
)
def test_a_final_mark_is_strong_evidence(said: str, expected: bool) -> None:
    assert complete(said, "en") is expected


def test_an_empty_turn_is_never_complete() -> None:
    assert RuleDetector().probability([Turn("user", " … ")]) == 0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("kannst du mir bitte das licht anmachen", "de"),
        ("est-ce que tu peux allumer la lumière", "fr"),
        ("puedes encender la luz por favor", "es"),
        ("puoi accendere la luce per favore", "it"),
        ("você pode acender a luz por favor", "pt"),
        ("can you turn on the light please", "en"),
        ("你能把灯打开吗", "zh"),
        ("電気をつけてください", "ja"),
        ("zzz", None),
    ],
)
def test_the_language_is_told_by_the_words_where_nobody_says_it(said: str, expected: str | None) -> None:
    assert guessed(said) == expected


def test_what_the_user_says_tells_it_before_what_the_assistant_says() -> None:
    greeting = Turn("assistant", "Hello! How can I help you?")

    assert spoken_language([greeting, Turn("user", "ich hätte gern ein")], None) == "de"
    assert spoken_language([greeting, Turn("user", "hm")], None) == "en"
    assert spoken_language([greeting, Turn("user", "ich hätte gern ein")], "fr-CA") == "fr"
    assert spoken_language([], "ko") == "en"


@pytest.mark.parametrize(
    ("code", "expected"), [("pt-BR", "pt"), ("EN_us", "en"), ("ko", None), ("", None), (None, None)]
)
def test_language_codes_may_name_a_region(code: str | None, expected: str | None) -> None:
    assert known_code(code) == expected


@pytest.mark.parametrize("name", NAMES)
def test_lists_are_written_as_normalised_text(name: str) -> None:
    lists = language(name)
    every = [*lists.open_words, *lists.open_endings, *lists.whole, *lists.common]

    assert every
    assert [text for text in every if normalised(text) != text] == []


def test_normalising_keeps_the_end_of_a_long_text() -> None:
    assert normalised("X" * 10 * MAX_CHARACTERS + "  Don’t… \n STOP! ").endswith("x don't stop")


def turns(text: str) -> Sequence[Turn]:
    return [Turn("user", "earlier."), Turn("assistant", "Yes."), Turn("user", text)]


@pytest.mark.parametrize(
    "text", ["Done.", "Done!", "Really?", "好的。", "そうですか\uff1f", "Done.) ", "सही।"]
)
def test_punct_is_complete_with_a_mark_that_ends_a_sentence(text: str) -> None:
    assert PunctuationDetector().probability(turns(text)) == 1


@pytest.mark.parametrize("text", ["done", "done,", "done...", "done…", "嗯\uff0c", "", "?!-"])
def test_punct_waits_for_one(text: str) -> None:
    assert PunctuationDetector().probability(turns(text)) == 0


def test_a_mark_that_only_closes_says_nothing() -> None:
    assert final_mark("(aside)") == ""
