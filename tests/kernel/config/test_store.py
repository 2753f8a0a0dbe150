"""Configuration files opened for edits: comments survive, nothing half-done or invalid is ever written."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lollms_kernel.config import load_config
from lollms_kernel.config.formats import FORMATS
from lollms_kernel.config.migrations import VERSION
from lollms_kernel.config.store import open_instance, open_main, read, save_all
from lollms_kernel.dummy import DummySettings
from lollms_kernel.errors import ConfigError

YAML = """\
# The server of the office.
server:      # who listens
  port: 9700 # not the default
  allowed_origins:
    # the intranet
    - "https://a.example"
    - https://b.example   # old

# Who may use it. Ask Anna.
security:
  allowed_api_keys: [one, two] # short
# Bindings follow.
bindings_map: {echo: dummy_binding}
defaults:
  ttt_binding: echo
  # nothing else yet
"""

TOML = """\
# The server of the office.
[server] # who listens
port = 9700 # not the default
allowed_origins = [
  # the intranet
  "https://a.example",
  'https://b.example',   # old
]

# Who may use it. Ask Anna.
[security]
allowed_api_keys = ["one", "two"] # short
# Bindings follow.
[bindings_map]
echo = "dummy_binding"
[defaults]
ttt_binding = "echo"
# nothing else yet
"""

TEXTS = {"main_config.yaml": YAML, "main_config.toml": TOML}

commented = pytest.mark.parametrize("name", TEXTS)


def comments(text: str) -> list[str]:
    """The comments of a text that has no # elsewhere."""
    return [line.partition("#")[2].strip() for line in text.splitlines() if "#" in line]


def write(folder: Path, text: str = YAML, name: str = "main_config.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


@commented
def test_an_edit_changes_one_value_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, TEXTS[name], name)
    document = open_main(tmp_path, {})

    document.set("server.port", 9800)
    document.save()

    assert path.read_text() == TEXTS[name].replace("9700", "9800")
    assert load_config(tmp_path, {}).main.server.port == 9800


@commented
def test_all_comments_survive_many_edits(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, TEXTS[name], name)
    document = open_main(tmp_path, {})

    document.set("server.host", "::1")
    document.set("server.allowed_origins[2]", "https://c.example")
    document.set("security.allowed_api_keys[1]", "three")
    document.set("logging", {"log_level": "DEBUG"})
    document.set("bindings_map.other", "dummy_binding")
    document.set("defaults.tti_binding", None)
    document.remove("defaults.ttt_binding")
    document.save()

    assert comments(path.read_text()) == comments(TEXTS[name])
    main = load_config(tmp_path, {}).main
    assert main.server.host == "::1"
    assert main.server.allowed_origins[2] == "https://c.example"
    assert main.bindings_map == {"echo": "dummy_binding", "other": "dummy_binding"}
    assert main.defaults.ttt_binding is None


@settings(max_examples=30)
@given(
    edits=st.lists(
        st.tuples(
            st.sampled_from(["server", "security", "bindings_map", "defaults", "logging", "webui"]),
            st.sampled_from(["a", "b", "port", "ttt_binding"]),
            st.sampled_from([1, "x", [], ["y", None], {}, {"deep": {"er": 1}}]),
        ),
        max_size=6,
    )
)
@commented
def test_comments_survive_whatever_is_set(
    tmp_path_factory: pytest.TempPathFactory, name: str, edits: list[tuple[str, str, Any]]
) -> None:
    path = write(tmp_path_factory.mktemp("edits"), TEXTS[name], name)
    document = read(path)

    for section, key, value in edits:
        document.set((section, key), value)
    document.save()

    own = {"not the default"} if ("server", "port") in [edit[:2] for edit in edits] else set()
    assert set(comments(TEXTS[name])) - set(comments(path.read_text())) <= own


def test_comments_stay_with_the_key_below_them(tmp_path: Path) -> None:
    path = write(tmp_path)
    document = open_main(tmp_path, {})

    document.set("server.allow_insecure_bind", True)
    document.set("server.allowed_origins[2]", "https://c.example")
    document.remove("server.port")
    document.save()

    assert path.read_text() == YAML.replace("  port: 9700 # not the default\n", "").replace(
        "   # old\n", "   # old\n    - https://c.example\n  allow_insecure_bind: true\n"
    )


def test_line_ends_and_indentation_of_the_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "main_config.yaml"
    path.write_bytes(b"server:\r\n    port: 1 # one\r\n    allowed_hosts:\r\n    - a\r\n")
    document = open_main(tmp_path, {})

    document.set("server.port", 2)
    document.set("server.allowed_hosts[1]", "b")
    document.save()

    assert (
        path.read_bytes() == b"server:\r\n    port: 2 # one\r\n    allowed_hosts:\r\n    - a\r\n    - b\r\n"
    )


@pytest.mark.parametrize(
    "text", ["yes", "12", "1_0", "1:30", "~", "2024-01-31", "<<", "=", "0x1F", "1e3", "#", " a"]
)
def test_a_text_that_yaml_takes_for_something_else_stays_a_text(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "a: b\n", "x.yaml")
    document = read(path)

    document.set("a", text)
    document.set((text,), text)
    document.save()

    assert yaml.safe_load(path.read_text()) == {"a": text, text: text}


def test_what_cannot_be_edited_safely_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = "a: &shared {x: 1}\nb: *shared\n"
    path = write(tmp_path, text, "x.yaml")
    document = read(path)

    document.set("b.x", 2)

    with pytest.raises(ConfigError, match="cannot be edited automatically; nothing was written"):
        document.save()
    assert path.read_text() == text


@pytest.mark.parametrize("form", FORMATS, ids=[form.name for form in FORMATS])
def test_a_new_file_has_the_version_and_only_its_owner_reads_it(tmp_path: Path, form: Any) -> None:
    folder = tmp_path / "not" / "there"
    document = open_main(folder, {}, extension=form.extensions[0])

    document.set("server.port", 9800)
    document.save()

    path = folder / f"main_config{form.extensions[0]}"
    assert document.path == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read(path).values == {"__version__": VERSION, "server": {"port": 9800}}
    assert load_config(folder, {}).main.server.port == 9800
    assert os.listdir(folder) == [path.name]


def test_the_previous_version_is_kept_and_mode_and_link_stay(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.mkdir()
    path = write(real)
    path.chmod(0o640)
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "main_config.yaml").symlink_to(path)

    document = open_main(folder, {})
    document.set("server.port", 9800)
    document.save()

    assert (folder / "main_config.yaml").is_symlink()
    assert sorted(os.listdir(real)) == ["main_config.yaml", "main_config.yaml.bak"]
    assert (real / "main_config.yaml.bak").read_text() == YAML
    for name in os.listdir(real):
        assert stat.S_IMODE((real / name).stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("server.port", 99999, "server.port: is 99999, must be an integer from 1 to 65535."),
        ("server.prot", 1, "server.prot: unknown key; did you mean `port`?"),
        ("defaults.tti_binding", "ecko", "which bindings_map does not have; did you mean `echo`?"),
        ("server", [], "server: is a list, must be a mapping of keys to values."),
    ],
)
def test_an_invalid_configuration_is_never_written(
    tmp_path: Path, path: str, value: Any, message: str
) -> None:
    file = write(tmp_path)
    document = open_main(tmp_path, {})

    document.set(path, value)

    with pytest.raises(ConfigError) as caught:
        document.save()
    assert message in caught.value.message
    assert caught.value.message.startswith(str(file))
    assert file.read_text() == YAML
    assert os.listdir(tmp_path) == ["main_config.yaml"]


def test_an_invalid_instance_is_never_written(tmp_path: Path) -> None:
    write(tmp_path)
    document = open_instance(load_config(tmp_path, {}), "echo", DummySettings, {})

    document.set("dealy", 1)

    with pytest.raises(ConfigError, match=r"bindings/echo\.yaml: dealy: unknown key; did you mean `delay`\?"):
        document.save()
    assert not (tmp_path / "bindings").exists()


def test_an_instance_of_another_type_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    document = open_instance(load_config(tmp_path, {}), "echo", DummySettings, {})

    document.set("type", "other_binding")

    with pytest.raises(
        ConfigError, match=r'type: is "other_binding", but bindings_map\.echo says "dummy_binding"'
    ):
        document.save()


def test_several_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    path = write(tmp_path)
    main = open_main(tmp_path, {})
    instance = open_instance(load_config(tmp_path, {}), "echo", DummySettings, {})
    main.set("server.port", 9800)
    instance.set("delay", "soon")

    with pytest.raises(ConfigError, match=r"delay: is \"soon\", must be a number"):
        save_all([main, instance])
    assert path.read_text() == YAML

    instance.set("delay", 1)
    save_all([main, instance])
    assert load_config(tmp_path, {}).main.server.port == 9800
    assert read(tmp_path / "bindings" / "echo.yaml").values["delay"] == 1


def test_who_lost_the_race_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    path = write(tmp_path)
    first, second = open_main(tmp_path, {}), open_main(tmp_path, {})
    first.set("server.port", 9800)
    second.set("server.port", 9900)

    first.save()

    with pytest.raises(
        ConfigError, match="was changed by somebody else in the meantime; nothing was written"
    ):
        second.save()
    assert "9800" in path.read_text()
    assert (tmp_path / "main_config.yaml.bak").read_text() == YAML


def test_a_file_that_came_or_went_in_the_meantime_is_noticed(tmp_path: Path) -> None:
    new = open_main(tmp_path, {})
    new.set("server.port", 1)
    path = write(tmp_path)
    with pytest.raises(ConfigError, match="changed by somebody else"):
        new.save()

    known = open_main(tmp_path, {})
    known.set("server.port", 1)
    path.unlink()
    with pytest.raises(ConfigError, match="changed by somebody else"):
        known.save()
    assert os.listdir(tmp_path) == []


def test_saving_again_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    path = write(tmp_path)
    document = open_main(tmp_path, {})

    for port in (1, 2, 3):
        document.set("server.port", port)
        document.save()
    document.save()

    assert "port: 3" in path.read_text()
    assert "port: 2" in (tmp_path / "main_config.yaml.bak").read_text()


def test_the_difference_is_told_without_secrets(tmp_path: Path) -> None:
    write(tmp_path)
    document = open_main(tmp_path, {})

    document.set("server.port", 9800)
    document.set("security.allowed_api_keys[1]", "s3cr3t")
    document.set("security.encryption_key", "${THE_KEY}")

    assert document.diff() == [
        "- server.port: 9700",
        "+ server.port: 9800",
        '+ security.encryption_key: "${THE_KEY}"',
    ]


@pytest.mark.parametrize("name", ["x.yaml", "x.toml", "x.json"])
def test_sections_and_lists_on_the_way_are_made(tmp_path: Path, name: str) -> None:
    document = read(write(tmp_path, '{"z": 1}' if name == "x.json" else "# z\n", name))

    document.set("a.b[0].c", 1)
    document.set("a.b[1].c[0]", "x")
    document.save()

    assert read(tmp_path / name).values["a"] == {"b": [{"c": 1}, {"c": ["x"]}]}


def test_a_place_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    write(tmp_path)
    document = open_main(tmp_path, {})

    with pytest.raises(ConfigError, match=r"server\.port\.x cannot be set: server\.port is neither"):
        document.set("server.port.x", 1)
    with pytest.raises(KeyError):
        document.remove("server.host")
    with pytest.raises(KeyError):
        document.get("nothing.here")
    assert not document.changed


def test_what_cannot_be_written_is_an_error_with_its_cure(tmp_path: Path) -> None:
    document = read(tmp_path / "configs" / "file.yaml")
    document.set("a", 1)
    (tmp_path / "configs").write_text("a file is in the way")

    with pytest.raises(ConfigError, match="cannot be written: ") as caught:
        document.save()
    assert "the right to write there" in str(caught.value.hint)
