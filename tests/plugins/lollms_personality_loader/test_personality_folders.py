"""Which folders hold a personality, and under which id."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lollms_personality_loader.folders import find_folders


def personality(root: Path, where: str, file: str = "config.yaml") -> Path:
    folder = root / where
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("name: Twin\n")
    return folder


def ids(root: Path) -> list[str]:
    return [folder.id for folder in find_folders(root)]


def test_given_flat_and_nested_folders_when_searched_then_the_path_is_the_id(tmp_path: Path) -> None:
    for where in ("pirate", "fun/pirate", "french/fun/le_poète délirant", "thinking/parent/group/child"):
        personality(tmp_path, where)

    assert ids(tmp_path) == [
        "french/fun/le_poète délirant",
        "fun/pirate",
        "pirate",
        "thinking/parent/group/child",
    ]


def test_given_two_of_the_same_name_when_searched_then_none_is_lost(tmp_path: Path) -> None:
    personality(tmp_path, "a/sparrow")
    personality(tmp_path, "b/sparrow")

    assert ids(tmp_path) == ["a/sparrow", "b/sparrow"]


def test_given_both_files_in_one_folder_when_searched_then_config_yaml_counts(tmp_path: Path) -> None:
    personality(tmp_path, "old", "SOUL.md")
    personality(tmp_path, "both", "SOUL.md")
    personality(tmp_path, "both", "config.yaml")

    assert [(found.id, found.file.name) for found in find_folders(tmp_path)] == [
        ("both", "config.yaml"),
        ("old", "SOUL.md"),
    ]


def test_given_a_config_below_a_personality_when_searched_then_it_belongs_to_that_one(tmp_path: Path) -> None:
    personality(tmp_path, "fun/pirate")
    personality(tmp_path, "fun/pirate/languages")
    personality(tmp_path, ".git/hooks")
    personality(tmp_path, "a/b/c/d/too_deep")

    assert ids(tmp_path) == ["fun/pirate"]


def test_given_the_category_of_a_folder_then_it_is_the_folder_around_it(tmp_path: Path) -> None:
    personality(tmp_path, "pirate")
    personality(tmp_path, "french/fun/pirate")

    assert [folder.category for folder in find_folders(tmp_path)] == ["fun", None]


def test_given_no_such_folder_when_searched_then_there_is_none(tmp_path: Path) -> None:
    assert ids(tmp_path / "missing") == []


def test_given_a_file_instead_of_the_folder_when_searched_then_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")

    assert ids(tmp_path / "file") == []
    assert str(tmp_path / "file") in caplog.text


def test_given_links_that_lead_out_when_searched_then_they_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = personality(tmp_path, "elsewhere/secret")
    root = tmp_path / "root"
    personality(root, "good")
    (root / "folder_link").symlink_to(outside)
    (root / "file_link").mkdir()
    (root / "file_link/config.yaml").symlink_to(outside / "config.yaml")

    assert ids(root) == ["good"]
    assert "folder_link is left out: it leads out of" in caplog.text
    assert "config.yaml is left out: it leads out of" in caplog.text


def test_given_links_that_stay_inside_or_turn_in_circles_when_searched_then_each_one_is_found_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    personality(tmp_path, "fun/pirate")
    (tmp_path / "fun/loop").symlink_to(tmp_path)
    (tmp_path / "favourite").symlink_to(tmp_path / "fun/pirate")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")

    assert ids(tmp_path) == ["fun/pirate"]
    assert not caplog.records


def test_given_the_root_itself_is_a_link_when_searched_then_it_is_followed(tmp_path: Path) -> None:
    personality(tmp_path, "real/pirate")
    (tmp_path / "link").symlink_to(tmp_path / "real")

    assert ids(tmp_path / "link") == ["pirate"]


def test_given_a_name_that_is_no_utf8_when_searched_then_it_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    personality(tmp_path, "good")
    os.mkdir(os.fsencode(tmp_path) + b"/bad\xff")
    (tmp_path / os.fsdecode(b"bad\xff") / "config.yaml").write_text("name: x")

    assert ids(tmp_path) == ["good"]
    assert "no UTF-8" in caplog.text
