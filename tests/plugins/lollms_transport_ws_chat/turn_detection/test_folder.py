"""Folders in the LiveKit layout: the prompt, thresholds by language, and what is wrong with a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from lollms_kernel.errors import ConfigError, LollmsError
from lollms_transport_ws_chat.turn_detection import DetectorSettings, Turn, create_detector
from lollms_transport_ws_chat.turn_detection.folder import FolderDetector, _Model, check_folder

from .conftest import WORDS, save_model


def detector(folder: Path, **others: Any) -> FolderDetector:
    found = create_detector(DetectorSettings(name="folder", folder=folder.name, **others), folder.parent)
    assert isinstance(found, FolderDetector)
    return found


def prompt(folder: Path, *turns: Turn) -> str:
    return _Model(check_folder(folder)).prompt(turns)


def several_languages(folder: Path) -> None:
    (folder / "languages.json").write_text(
        '{"en": {"threshold": 0.03}, "pt-BR": {"threshold": 0.007}, "de": {"threshold": 0.005}}'
    )


def test_the_probability_is_that_of_the_last_token(folder: Path) -> None:
    asked = detector(folder)

    assert asked.probability([Turn("user", "okay please")]) == pytest.approx(0.5)
    assert asked.probability([Turn("user", "please to")]) == pytest.approx(0.0005)


def test_the_original_threshold_lets_pass_what_is_not_obviously_unfinished(folder: Path) -> None:
    asked = detector(folder)

    assert asked.probability([Turn("user", "hello to")]) < asked.threshold
    assert asked.probability([Turn("user", "okay")]) >= asked.threshold


def test_the_prompt_ends_where_the_last_turn_would(folder: Path) -> None:
    said = prompt(folder, Turn("assistant", "Hello"), Turn("user", "to London"))

    assert said == "<|im_start|> assistant Hello <|im_end|> <|im_start|> user to London "


def test_only_the_last_six_turns_with_words_are_shown(folder: Path) -> None:
    turns = [Turn("assistant" if n % 2 else "user", f"turn{n}") for n in range(12)]

    said = prompt(
        folder, Turn("system", "rules"), *turns[:-1], Turn("tool", "x"), Turn("user", " "), turns[-1]
    )

    assert [word for word in said.split() if word.startswith("turn")] == [f"turn{n}" for n in range(6, 12)]
    assert "rules" not in said


def test_turns_of_one_side_are_joined(folder: Path) -> None:
    assert "user to London " in prompt(folder, Turn("user", "to"), Turn("user", "London"))


def test_one_language_keeps_the_text_as_it_is(folder: Path) -> None:
    assert "user To LONDON, please. " in prompt(folder, Turn("user", "To LONDON, please."))


def test_several_languages_lose_case_and_marks(folder: Path) -> None:
    several_languages(folder)

    assert "user it's to-day in london please " in prompt(
        folder, Turn("user", "It's  to-day, in LONDON: \n please\uff01")
    )


def test_long_prompts_lose_their_beginning(folder: Path) -> None:
    text = "please " * 500 + "to"

    assert detector(folder).probability([Turn("user", text)]) == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("language", "threshold"),
    [("en", 0.03), ("en-GB", 0.03), ("pt_br", 0.007), ("pt", 0.0009), ("xx", 0.0009), (None, 0.0009)],
)
def test_auto_takes_the_folders_threshold_of_the_language(
    folder: Path, language: str | None, threshold: float
) -> None:
    several_languages(folder)

    assert detector(folder).threshold_for(language) == threshold


def test_a_number_holds_for_every_language(folder: Path) -> None:
    assert detector(folder, threshold=0.2).threshold_for("en") == 0.2


def test_a_template_in_a_file_of_its_own_is_found(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }} <|im_end|>{% endfor %}"
    )

    assert prompt(folder, Turn("user", "to")) == "to "


@pytest.mark.parametrize("missing", ["onnx/model_q8.onnx", "tokenizer.json", "tokenizer_config.json"])
def test_a_missing_file_is_named_at_the_start(folder: Path, missing: str) -> None:
    (folder / missing).unlink()

    with pytest.raises(ConfigError, match=r"has no"):
        detector(folder)


def test_a_missing_folder_says_that_nothing_is_downloaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder") as caught:
        detector(tmp_path / "nowhere")

    assert "nothing is downloaded" in str(caught.value.hint)


def test_no_folder_at_all_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a folder"):
        create_detector(DetectorSettings(name="folder"), tmp_path)


def test_a_missing_library_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ConfigError, match="not installed") as caught:
        detector(folder)

    assert "lollms-transport-ws-chat[folder]" in str(caught.value.hint)


@pytest.mark.parametrize("content", ["{", '{"en": 0.1}', "[" * 100_000, "[]"])
def test_broken_thresholds_are_told_at_the_start(folder: Path, content: str) -> None:
    (folder / "languages.json").write_text(content)

    with pytest.raises(ConfigError, match=r"languages\.json"):
        detector(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.__class__.__mro__ }}{% endfor %}",
        "{{ messages.append(1) }}",
        "{% for",
        "{{ ''.__class__.__base__.__subclasses__() }}",
    ],
)
def test_a_template_that_breaks_out_is_refused_at_the_first_use(folder: Path, template: str) -> None:
    (folder / "tokenizer_config.json").write_bytes(msgspec.json.encode({"chat_template": template}))

    with pytest.raises(ConfigError, match="cannot be used"):
        detector(folder).probability([Turn("user", "hello")])


@pytest.mark.parametrize("value", [7.5, -0.1, float("nan")])
def test_a_model_that_answers_no_probability_is_refused(folder: Path, value: float) -> None:
    save_model(folder / "onnx" / "model_q8.onnx", [value] * len(WORDS))

    with pytest.raises(ConfigError, match="no probability"):
        detector(folder).probability([Turn("user", "hello")])


def test_a_model_with_other_inputs_is_refused(folder: Path) -> None:
    save_model(folder / "onnx" / "model_q8.onnx", list(WORDS.values()), input_name="tokens")

    with pytest.raises(LollmsError, match="input_ids"):
        detector(folder).probability([Turn("user", "hello")])
