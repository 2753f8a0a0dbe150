"""One configuration in four formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lollms_kernel.config import MainConfig, load_config
from lollms_kernel.config.conversion import convert_file
from lollms_kernel.config.encryption import VARIABLE, new_key
from lollms_kernel.config.formats import FORMATS, format_named
from lollms_kernel.config.store import open_main, read
from lollms_kernel.errors import ConfigError

CONTENT = {
    "__version__": "2.0.0",
    "server": {"port": 9700, "host": "${HOST}"},
    "paths": {"example_functions_folder": None},
    "security": {"allowed_api_keys": ["k", {"name": "anna", "hash": "sha256:" + "0" * 64}]},
    "defaults": {"ttt_binding": "a.b", "tti_binding": None},
    "bindings_map": {"a.b": "t"},
    "webui": None,
    "transports": {"socketio": {"enabled": True, "nothing": None}},
}

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$"), max_size=8)
keys = st.from_regex(r"[!-#%-~]{1,12}", fullmatch=True)
configurations = st.fixed_dictionaries(
    {},
    optional={
        "server": st.fixed_dictionaries(
            {},
            optional={
                "port": st.integers(1, 65535),
                "shutdown_grace": st.floats(0, 86400),
                "allowed_origins": st.lists(texts.filter(bool), max_size=3),
                "allow_insecure_bind": st.booleans(),
            },
        ),
        "security": st.fixed_dictionaries({"allowed_api_keys": st.lists(keys, max_size=3)}) | st.none(),
        "paths": st.fixed_dictionaries(
            {"example_functions_folder": st.none() | st.just("zoo"), "models_folder": st.just("m")}
        ),
        "bindings_map": st.dictionaries(names, texts.filter(bool), max_size=3),
        "personalities_config": st.dictionaries(
            texts, st.fixed_dictionaries({"enabled": st.booleans()}), max_size=2
        ),
        "transports": st.dictionaries(
            texts, st.dictionaries(texts, texts | st.none() | st.lists(st.none() | texts)), max_size=2
        ),
    },
)


def write(folder: Path, content: Any = CONTENT) -> Path:
    path = folder / "main_config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def main_of(folder: Path, environ: dict[str, str] | None = None) -> MainConfig:
    return load_config(folder, {"HOST": "::1"} if environ is None else environ).main


def test_through_all_formats_and_back(tmp_path: Path) -> None:
    path = write(tmp_path)
    wanted = main_of(tmp_path)

    for name in ("toml", "json", "sqlite", "yaml"):
        before = open_main(tmp_path, {})
        after = convert_file(before, format_named(name))

        assert main_of(tmp_path) == wanted
        assert not before.path.exists()
        assert before.path.with_name(before.path.name + ".bak").exists()
        assert load_config(tmp_path, {"HOST": "::1"}).file == after
    values = yaml.safe_load(path.read_text())
    assert values["server"]["host"] == "${HOST}"
    assert values["transports"] == CONTENT["transports"]
    assert values["paths"] == {"example_functions_folder": None}


def test_toml_leaves_out_the_nulls_that_are_defaults(tmp_path: Path) -> None:
    write(tmp_path)

    text = convert_file(open_main(tmp_path, {}), format_named("toml")).read_text()

    assert "tti_binding" not in text
    assert "webui" not in text
    assert 'example_functions_folder = "${null}"' in text


@pytest.mark.parametrize("name", [form.name for form in FORMATS if form.name != "yaml"])
@settings(max_examples=40)
@given(content=configurations)
def test_every_valid_configuration_means_the_same_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: Any
) -> None:
    folder = tmp_path_factory.mktemp("convert")
    write(folder, content)
    wanted = main_of(folder, {})

    convert_file(open_main(folder, {}), format_named(name))

    assert main_of(folder, {}) == wanted


def test_a_file_of_that_format_or_one_in_the_way_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)

    with pytest.raises(ConfigError, match="is YAML already"):
        convert_file(open_main(tmp_path, {}), format_named("yaml"))
    document = open_main(tmp_path, {})
    (tmp_path / "main_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"main_config\.json exists already"):
        convert_file(document, format_named("json"))
    assert path.exists()


def test_numbers_that_json_does_not_know_stay_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_text("a: .nan\nb: .inf\n")

    for name in ("json", "sqlite"):
        with pytest.raises(ConfigError, match="cannot hold these values"):
            convert_file(read(path), format_named(name))
    assert convert_file(read(path), format_named("toml")).read_text().endswith("a = nan\nb = inf\n")


def test_the_file_that_becomes_a_backup_holds_no_secret_in_clear(tmp_path: Path) -> None:
    path = write(tmp_path, {"security": {"allowed_api_keys": ["s3cr3t"]}})
    environ = {VARIABLE: new_key()}

    converted = convert_file(open_main(tmp_path, environ), format_named("toml"))

    assert "s3cr3t" not in converted.read_text()
    assert "s3cr3t" not in path.with_name("main_config.yaml.bak").read_text()
    assert main_of(tmp_path, environ).security.allowed_api_keys == ("s3cr3t",)
