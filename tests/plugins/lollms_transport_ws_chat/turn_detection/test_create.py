"""From settings to detectors: defaults, warnings of wrong pairings, and errors that name their cure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from lollms_kernel.errors import ConfigError
from lollms_transport_ws_chat.turn_detection import DetectorSettings, Turn, create_detector
from lollms_transport_ws_chat.turn_detection.detector import DetectorName

NAMES = get_args(DetectorName)


def settings(name: Any, folder: Path | None = None, **others: Any) -> DetectorSettings:
    return DetectorSettings(name=name, folder=str(folder) if name == "folder" else None, **others)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "said", ["i would like to", "Hello there.", "", "   ", "…", "\x00\u200b", "word " * 4000, "我想"]
)
def test_every_detector_gives_a_probability_for_whatever_is_said(name: str, said: str, folder: Path) -> None:
    detector = create_detector(settings(name, folder), Path("/"))

    found = [
        detector.probability([Turn("assistant", "Hi!"), Turn("user", said)], code)
        for code in (None, "en", "xx")
    ]

    assert all(0 <= probability <= 1 for probability in found)
    assert detector.name == name
    detector.close()
    assert detector.probability([Turn("user", said)]) >= 0  # it loads again
    detector.close()


@pytest.mark.parametrize("name", NAMES)
def test_no_turn_at_all_is_no_error(name: str, folder: Path) -> None:
    assert 0 <= create_detector(settings(name, folder), Path("/")).probability([]) <= 1


@pytest.mark.parametrize(
    ("name", "threshold"),
    [("embedded", 0.5), ("rule", 0.5), ("folder", 0.0009), ("always", 0.5), ("never", 0.5), ("punct", 0.5)],
)
def test_each_detector_has_its_own_threshold(name: str, threshold: float, folder: Path) -> None:
    assert create_detector(settings(name, folder), Path("/")).threshold == threshold


def test_a_number_replaces_the_threshold() -> None:
    assert create_detector(settings("embedded", threshold=0.7), Path("/")).threshold == 0.7


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(ConfigError, match="no probability") as caught:
        create_detector(settings("rule", threshold=threshold), Path("/"))

    assert "auto" in str(caught.value.hint)


def test_the_seeds_threshold_with_another_detector_than_folder_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    create_detector(settings("embedded", threshold=0.0009), Path("/"))

    assert "0.0009" in caplog.text
    assert "nearly every unfinished turn counts as complete" in caplog.text


def test_the_seeds_threshold_with_a_folder_is_right(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_detector(settings("folder", folder, threshold=0.0009), Path("/"))

    assert caplog.text == ""


def test_a_threshold_that_no_folder_reaches_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_detector(settings("folder", folder, threshold=0.5), Path("/"))

    assert "far above" in caplog.text


def test_a_folder_that_nobody_uses_is_told(caplog: pytest.LogCaptureFixture) -> None:
    create_detector(DetectorSettings(name="rule", folder="models/turn"), Path("/"))

    assert "does not use the folder" in caplog.text


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no turn detector 'guess'") as caught:
        create_detector(settings("guess"), Path("/"))

    assert all(name in str(caught.value.hint) for name in NAMES)


def test_creating_one_imports_no_engine() -> None:
    program = (
        "import sys; from pathlib import Path; from lollms_transport_ws_chat.turn_detection import *;"
        "create_detector(DetectorSettings(), Path('/'));"
        "print(sorted({'onnxruntime', 'numpy', 'torch', 'tokenizers'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
