"""The committed network: its figures on the frozen sets, its export, and when it is asked at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from lollms_kernel.errors import ConfigError
from lollms_transport_ws_chat.turn_detection import Turn
from lollms_transport_ws_chat.turn_detection.embedded import EmbeddedDetector, Network, embedded_model

from .conftest import PLUGIN

Training = Callable[[str], ModuleType]
TRAINING = PLUGIN / "turn_training"


def test_the_committed_network_has_the_figures_that_are_reported(training: Training) -> None:
    reported = json.loads((TRAINING / "figures.json").read_text("utf-8"))

    measured = training("evaluate").evaluate()  # what is tested is what is reported

    assert measured["languages"].keys() == reported["languages"].keys()
    for language, entry in reported["languages"].items():
        for judge in {"rule", "embedded"} & entry.keys():
            for name, values in entry[judge].items():
                # Another processor rounds differently, and a turn on the edge may fall to the other side.
                assert measured["languages"][language][judge][name] == pytest.approx(values, abs=0.006)


def test_the_results_page_shows_the_reported_figures() -> None:
    reported = json.loads((TRAINING / "figures.json").read_text("utf-8"))["languages"]["en"]["embedded"]
    page = (TRAINING / "RESULTS.md").read_text("utf-8")

    for name in ("accuracy", "TPR", "TNR", "AUC"):
        value, low, high = (f"{100 * number:.1f}" for number in reported[name])
        assert f"| {name} | {value} [{low}, {high}] |" in page


def test_it_meets_its_target_and_beats_the_rule_by_far() -> None:
    english = json.loads((TRAINING / "figures.json").read_text("utf-8"))["languages"]["en"]

    assert english["complete"] + english["unfinished"] >= 400
    assert english["embedded"]["accuracy"][0] >= 0.9  # the target
    assert english["embedded"]["accuracy"][1] > english["rule"]["accuracy"][2]  # the intervals do not touch
    assert english["embedded"]["AUC"][1] > english["rule"]["AUC"][2]
    assert english["embedded"]["FPR at TPR 95 %"][0] < english["rule"]["FPR at TPR 95 %"][0]
    assert english["FPR at the rule's TPR"] < 1 - english["rule"]["TNR"][0]
    assert english["p (McNemar)"] < 1e-6


def test_the_file_is_small_and_the_one_that_was_exported() -> None:
    content = embedded_model().read_bytes()

    assert len(content) <= 1_000_000
    reference = json.loads((TRAINING / "reference.json").read_text("utf-8"))
    assert hashlib.sha256(content).hexdigest() == reference["sha256"]


def test_the_export_says_what_the_trained_network_said() -> None:
    reference = json.loads((TRAINING / "reference.json").read_text("utf-8"))
    network = Network(embedded_model())

    said = [network.probability([Turn(*turn) for turn in turns]) for turns in reference["turns"]]

    assert len(said) >= 150
    assert max(said) - min(said) > 0.8
    assert said == pytest.approx(reference["probabilities"], abs=2e-3)  # embeddings are float16 there


def test_the_assistants_question_counts() -> None:
    detector = EmbeddedDetector()
    asked = [Turn("assistant", "What's your phone number?")]

    three, ten = (
        detector.probability([*asked, Turn("user", " ".join(["five"] * digits))]) for digits in (3, 10)
    )

    assert three < detector.threshold <= ten


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("ich hätte gern ein", "de"),
        ("ich hätte gern ein", None),
        ("我想要一个", None),
        ("i want to", "de-AT"),
    ],
)
def test_other_languages_are_judged_by_the_rule(text: str, language: str | None) -> None:
    detector = EmbeddedDetector()
    detector._loaded = lambda: pytest.fail("the network speaks English only")  # type: ignore[method-assign]

    assert detector.probability([Turn("user", text)], language) in (0.1, 0.9)


def test_the_history_tells_the_language_of_a_short_answer() -> None:
    detector = EmbeddedDetector()
    detector._loaded = lambda: pytest.fail("the network speaks English only")  # type: ignore[method-assign]

    question = Turn("assistant", "Guten Tag, wie kann ich Ihnen helfen?")

    assert detector.probability([question, Turn("user", "hm also mit")]) == 0.1


def test_several_threads_may_ask_at_once() -> None:
    detector = EmbeddedDetector()
    said = [
        [Turn("user", text)] for text in ("turn it off", "turn off the", "what time is it", "i think that")
    ] * 25

    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(detector.probability, said))

    assert together == pytest.approx([detector.probability(turns) for turns in said], abs=1e-6)


def test_a_broken_file_is_an_error_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")

    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        Network(tmp_path / "broken.onnx")

    assert "rule" in str(caught.value.hint)
