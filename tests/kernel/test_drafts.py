"""Drafts of configuration changes: shown, written whole, taken back whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lollms_kernel.config.encryption import new_key
from lollms_kernel.contracts import Binding, BindingCard, InstanceSettings, Secret
from lollms_kernel.drafts import Draft, FileChange
from lollms_kernel.dummy import DummyBinding
from lollms_kernel.errors import BindingNotFound, ConfigError

MAIN = """\
# my server
bindings_map:
  echo: dummy_binding   # answers what it hears
defaults: {ttt_binding: echo}
"""
ECHO = "type: dummy_binding\n# keep it short\nmax_output_tokens: 10\n"


class CloudSettings(InstanceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    token: Secret | None = None
    size: int = 1


class CloudBinding(DummyBinding):
    type_name = "cloud_binding"
    card = BindingCard(
        display_name="Cloud", version="1", author="t", description="", supported_output_modalities=("image",)
    )
    Settings = CloudSettings


TYPES: dict[str, type[Binding]] = {kind.type_name: kind for kind in (DummyBinding, CloudBinding)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration folder with one instance and comments."""
    bindings = tmp_path / "configs" / "bindings"
    bindings.mkdir(parents=True)
    (bindings.parent / "main_config.yaml").write_text(MAIN)
    (bindings / "echo.yaml").write_text(ECHO)
    return bindings.parent


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_given_edits_when_not_written_then_no_file_changes(folder: Path) -> None:
    before = contents(folder)
    draft = Draft(folder, TYPES)

    draft.add("new", "dummy_binding", {})
    draft.edit("echo", {"reply": "x"})
    draft.remove("new")

    assert draft.changed
    assert contents(folder) == before


def test_given_an_edit_when_written_then_comments_stay_and_the_diff_was_right(folder: Path) -> None:
    draft = Draft(folder, TYPES)
    draft.edit("echo", {"max_output_tokens": 20})

    assert draft.diff() == [
        FileChange(
            file="bindings/echo.yaml",
            state="changed",
            lines=("- max_output_tokens: 10", "+ max_output_tokens: 20"),
        )
    ]
    draft.write()
    assert contents(folder)["bindings/echo.yaml"] == ECHO.replace("10", "20")
    assert contents(folder)["main_config.yaml"] == MAIN


def test_given_any_change_when_taken_back_then_every_file_is_as_before_backups_too(folder: Path) -> None:
    (folder / "main_config.yaml.bak").write_text("an older version")
    (folder / "bindings" / "echo.yaml.bak").write_text("another one")
    before = contents(folder)
    draft = Draft(folder, TYPES)
    draft.add("new", "cloud_binding", {"size": 3})
    draft.remove("echo")

    take_back = draft.write()
    between = contents(folder)
    take_back()

    assert between["bindings/echo.yaml.bak"] == ECHO
    assert "bindings/echo.yaml" not in between
    assert "bindings/new.yaml" in between
    assert contents(folder) == before


def test_given_somebody_else_who_wrote_when_taken_back_then_their_version_stays(folder: Path) -> None:
    draft = Draft(folder, TYPES)
    draft.edit("echo", {"reply": "mine"})
    take_back = draft.write()
    (folder / "bindings" / "echo.yaml").write_text("reply: theirs\n")

    with pytest.raises(ConfigError, match="changed by somebody else"):
        take_back()

    assert contents(folder)["bindings/echo.yaml"] == "reply: theirs\n"


def test_given_a_mistake_when_written_then_nothing_is(folder: Path) -> None:
    before = contents(folder)
    draft = Draft(folder, TYPES)
    draft.add("new", "dummy_binding", {"reply": "fine"})
    draft.edit("echo", {"rply": "x"})

    with pytest.raises(ConfigError, match="did you mean `reply`"):
        draft.write()

    assert contents(folder) == before
    assert [fault.path for fault in draft.faults("echo")] == [("rply",)]


def test_given_a_first_image_instance_when_added_then_it_becomes_the_default_and_not_that_for_text(
    folder: Path,
) -> None:
    draft = Draft(folder, TYPES)
    draft.add("painter", "cloud_binding", {})
    draft.add("second", "cloud_binding", {})
    draft.write()

    defaults = yaml.safe_load(contents(folder)["main_config.yaml"])["defaults"]
    assert defaults == {"ttt_binding": "echo", "tti_binding": "painter"}


def test_given_another_type_when_placed_then_nothing_of_the_old_settings_is_left(folder: Path) -> None:
    draft = Draft(folder, TYPES)
    draft.place("echo", "cloud_binding", {"size": 2})
    draft.write()

    assert yaml.safe_load(contents(folder)["bindings/echo.yaml"]) == {"type": "cloud_binding", "size": 2}
    assert yaml.safe_load(contents(folder)["main_config.yaml"])["bindings_map"] == {"echo": "cloud_binding"}


def test_given_a_secret_when_stars_are_sent_back_then_it_stays_and_is_encrypted_with_a_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOLLMS_ENCRYPTION_KEY", new_key())
    first = Draft(folder, TYPES)
    first.add("cloud", "cloud_binding", {"token": "very-secret"})
    first.write()
    file = contents(folder)["bindings/cloud.yaml"]

    second = Draft(folder, TYPES)
    shown = second.settings("cloud")
    second.place("cloud", "cloud_binding", {**shown, "size": 2})
    second.write()

    assert shown["token"] == "***"
    assert "enc:" in file
    written = yaml.safe_load(contents(folder)["bindings/cloud.yaml"])
    assert second.faults("cloud") == []
    assert written["__version__"] == yaml.safe_load(file)["__version__"]
    assert (written["token"], written["size"]) == (yaml.safe_load(file)["token"], 2)
    assert "very-secret" not in "".join(contents(folder).values())


def test_given_stars_for_a_secret_that_is_not_there_when_placed_then_it_is_a_clear_error(
    folder: Path,
) -> None:
    with pytest.raises(ConfigError, match="there is none"):
        Draft(folder, TYPES).place("cloud", "cloud_binding", {"token": "***"})


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "-x", "x" * 101, "ü"])
def test_given_a_name_that_could_lead_elsewhere_when_added_then_it_is_refused(
    folder: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="is no name for an instance"):
        Draft(folder, TYPES).add(name, "dummy_binding", {})


def test_given_names_that_do_not_exist_when_used_then_the_error_says_what_does(folder: Path) -> None:
    draft = Draft(folder, TYPES)

    with pytest.raises(BindingNotFound) as unknown:
        draft.edit("ecko", {})
    with pytest.raises(ConfigError) as not_installed:
        draft.add("x", "gemini_binding", {})
    with pytest.raises(ConfigError) as twice:
        draft.add("echo", "dummy_binding", {})
    with pytest.raises(ConfigError) as unset:
        draft.edit("echo", {}, ["reply"])

    assert unknown.value.hint == "Configured: echo."
    assert not_installed.value.hint == "Install it: `pip install lollms-binding-gemini`."
    assert "already" in twice.value.message
    assert "max_output_tokens" in str(unset.value.hint)
