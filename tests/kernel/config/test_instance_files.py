"""Files of binding instances."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lollms_kernel.config import LoadedConfig, convert, instance_file, load_config, read_instance
from lollms_kernel.contracts import InstanceSettings
from lollms_kernel.errors import ConfigError


class Needy(InstanceSettings, frozen=True, kw_only=True):
    url: str


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedConfig:
    """A configuration with the instances `one` and `a.b`, without any instance file."""
    (tmp_path / "bindings").mkdir()
    (tmp_path / "main_config.yaml").write_text("bindings_map: {one: dummy_binding, a.b: dummy_binding}")
    return load_config(tmp_path, {})


def write(loaded: LoadedConfig, name: str, text: str) -> None:
    (loaded.config_dir / "bindings" / name).write_text(text)


def test_type_and_name_are_filled_in(loaded: LoadedConfig) -> None:
    write(loaded, "one.yml", "delay: 1\n__version__: 1.2.1\n")

    assert read_instance(loaded, "one") == {
        "type": "dummy_binding",
        "binding_instance_name": "one",
        "delay": 1,
    }


def test_type_and_name_may_be_given(loaded: LoadedConfig) -> None:
    write(loaded, "a.b.yaml", "type: dummy_binding\nbinding_instance_name: a.b\n")

    assert read_instance(loaded, "a.b") == {"type": "dummy_binding", "binding_instance_name": "a.b"}


@pytest.mark.parametrize("folder", ["bindings", "gone"])
def test_a_missing_file_means_all_defaults(loaded: LoadedConfig, folder: str) -> None:
    paths = msgspec.structs.replace(loaded.main.paths, instance_bindings_folder=folder)
    loaded = msgspec.structs.replace(loaded, main=msgspec.structs.replace(loaded.main, paths=paths))

    assert read_instance(loaded, "one") == {"type": "dummy_binding", "binding_instance_name": "one"}
    assert instance_file(loaded, "one") == loaded.config_dir / folder / "one.yaml"


def test_where_a_setting_is_required_the_error_names_the_file_to_create(loaded: LoadedConfig) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(read_instance(loaded, "one"), Needy, str(instance_file(loaded, "one")))

    assert caught.value.message == f"{loaded.config_dir}/bindings/one.yaml: url: is missing, must be text."


def test_another_type_or_name_than_the_maps_is_an_error(loaded: LoadedConfig) -> None:
    write(loaded, "one.yaml", "type: ollama_binding\nbinding_instance_name: 1\n")

    with pytest.raises(ConfigError) as caught:
        read_instance(loaded, "one")

    first, *lines = caught.value.message.splitlines()
    assert first.endswith("bindings/one.yaml: 2 problems:")
    assert lines == [
        '  type: is "ollama_binding", but bindings_map.one says "dummy_binding".',
        '  binding_instance_name: is 1, but the file\'s name says "one".',
    ]


@pytest.mark.parametrize("name", ["two", "", "..", "../main_config", "a/b", "one.yaml", "/etc/passwd", "\0"])
def test_only_instances_of_the_map_are_read(loaded: LoadedConfig, name: str) -> None:
    with pytest.raises(ConfigError, match="bindings_map has no instance") as caught:
        read_instance(loaded, name)
    assert caught.value.hint == "It has: a.b, one."


def test_two_files_for_one_instance_are_an_error(loaded: LoadedConfig) -> None:
    write(loaded, "one.yaml", "")
    write(loaded, "one.json", "{}")

    with pytest.raises(ConfigError, match=r"one\.yaml and one\.json"):
        read_instance(loaded, "one")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("one.toml", "a = !", "line 1, column 5: not valid TOML"),
        ("one.json", "[1]", "holds a list where keys and values should be"),
        ("one.db", "a", "is no SQLite file"),
        ("one.yaml", "a: {b]", "line 1, column"),
        ("one.yaml", "[a]", "holds a list where keys and values should be"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(
    loaded: LoadedConfig, file: str, text: str, message: str
) -> None:
    write(loaded, file, text)

    with pytest.raises(ConfigError) as caught:
        read_instance(loaded, "one")
    assert message in caught.value.message
    assert f"bindings/{file}" in caught.value.message


def test_a_link_to_nowhere_is_an_error_and_no_default(loaded: LoadedConfig) -> None:
    (loaded.config_dir / "bindings" / "one.yaml").symlink_to("gone")

    with pytest.raises(ConfigError, match="cannot be read"):
        read_instance(loaded, "one")
