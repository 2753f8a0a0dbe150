"""Files of lollms_server 0.2 and 0.3 load as they are, and are rewritten on request."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from lollms_kernel.config import load_config, read_instance
from lollms_kernel.config.migrations import MIGRATIONS, VERSION, upgrade_main
from lollms_kernel.config.store import read, save_all
from lollms_kernel.config.upgrading import Upgrade, upgrade_files
from lollms_kernel.dummy import DummySettings
from lollms_kernel.errors import ConfigError

KINDS = {"dummy_binding": DummySettings}

CONFIG_0_2 = """\
# lollms_server Configuration
[server]
host = "127.0.0.1" # only me
workers = 4
[paths]
models_folder = "my_models/"
[security]
allowed_api_keys = ["user1_key_abc123"]
[defaults]
ttt_binding = "default_dummy"
ttt_model = "phi3:mini"
tti_model = "dall-e-3"
default_context_size = 8192
[bindings.default_dummy] # my binding
type = "dummy_binding"
delay = 1
mode = "ttt"
[bindings.gone]
type = "hf_binding"
model_name_or_path = "microsoft/phi-2"
[webui]
enable_ui = true
build_directory = "webui/dist"
[logging]
log_level = "DEBUG"
level = 0
[personalities_config.lollms]
enabled = true
max_execution_retries = 2
[resource_manager]
gpu_strategy = "semaphore"
gpu_limit = 1
queue_timeout = 60
"""

CONFIG_0_3 = {
    "__version__": "0.3.2",
    "server": {
        "host": "0.0.0.0",
        "port": 9601,
        "allowed_origins": ["http://localhost", "null"],
    },
    "paths": {
        "config_base_dir": "lollms_configs",
        "instance_bindings_folder": "bindings",
        "personalities_folder": "personal/personalities",
        "bindings_folder": "personal/bindings",
        "functions_folder": "personal/functions",
        "models_folder": "models",
        "example_personalities_folder": "zoos/personalities",
        "example_bindings_folder": "zoos/bindings",
        "example_functions_folder": None,
    },
    "security": {"allowed_api_keys": ["k1"], "encryption_key": None},
    "defaults": {
        "ttt_binding": "my_dummy",
        **dict.fromkeys([f"{kind}_binding" for kind in ("tti", "tts", "stt", "ttv", "ttm")]),
        "default_context_size": 4096,
        "default_max_output_tokens": 1024,
    },
    "bindings_map": {"my_dummy": "dummy_binding"},
    "resource_manager": {"gpu_strategy": "semaphore", "gpu_limit": 1, "queue_timeout": 120},
    "webui": {"enable_ui": False},
    "logging": {"log_level": "INFO", "level": 20},
    "personalities_config": {},
}

INSTANCE_0_3 = {
    "__version__": "1.0.0",
    "type": "dummy_binding",
    "binding_instance_name": "my_dummy",
    "mode": "ttt",
    "delay": 0.1,
}


def write(folder: Path, content: Any, name: str = "main_config.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def migrate(folder: Path, source: Path | None = None) -> Upgrade:
    upgrade = upgrade_files(folder, KINDS, source, {})
    save_all(upgrade.documents)
    return upgrade


# --- 0.3 ---


def test_a_file_of_0_3_loads_without_a_word(tmp_path: Path) -> None:
    write(tmp_path, CONFIG_0_3)

    loaded = load_config(tmp_path, {})

    assert loaded.warnings == ()
    assert loaded.main.server.host == "0.0.0.0"
    assert loaded.main.bindings_map == {"my_dummy": "dummy_binding"}
    assert loaded.main.paths.example_functions_folder is None
    assert loaded.main.resource_manager.max_running == 64, "new keys have their defaults"


def test_keys_that_are_gone_are_warnings_in_an_older_file_and_errors_in_a_current_one(tmp_path: Path) -> None:
    content = {**CONFIG_0_3, "server": {"port": 9601, "reload": True}, "telemetry": {"on": True}}
    path = write(tmp_path, content)

    assert load_config(tmp_path, {}).warnings == (
        f"{path}: server.host is 127.0.0.1 by default; it was 0.0.0.0.",
        f"{path}: server.reload is not used any more.",
        f"{path}: telemetry is not used any more.",
    )
    for version in ({"__version__": VERSION}, {}):
        write(tmp_path, {**{k: v for k, v in content.items() if k != "__version__"}, **version})
        with pytest.raises(ConfigError, match=r"server\.reload: unknown key"):
            load_config(tmp_path, {})


def test_a_wrong_value_is_an_error_in_an_older_file_too(tmp_path: Path) -> None:
    write(tmp_path, {**CONFIG_0_3, "server": {"port": "many", "reload": True}})

    with pytest.raises(ConfigError, match=r'server\.port: is "many", must be an integer') as caught:
        load_config(tmp_path, {})
    assert "lollms config migrate" in str(caught.value.hint)


@pytest.mark.parametrize("folder", ["personalities", "bindings", "functions"])
def test_folders_of_the_first_wizard_have_their_new_names(tmp_path: Path, folder: str) -> None:
    paths = {f"personal_{folder}_folder": "mine"}
    path = write(tmp_path, {"__version__": "0.3.0", "server": {"host": "::1"}, "paths": paths})

    loaded = load_config(tmp_path, {})

    assert getattr(loaded.main.paths, f"{folder}_folder") == "mine"
    assert loaded.warnings == (f"{path}: paths.personal_{folder}_folder is now paths.{folder}_folder.",)


@pytest.mark.parametrize(
    "content",
    [
        {"version": "0.3.2", "schema": {"server": {"type": "section"}}, "values": CONFIG_0_3},
        {"__version__": "0.3.2", "__schema__": {}, "__settings__": {**CONFIG_0_3}},
    ],
    ids=["full", "full with underscores"],
)
def test_what_configguard_wrapped_is_unwrapped(tmp_path: Path, content: Any) -> None:
    inner = next(value for key, value in content.items() if key in ("values", "__settings__"))
    inner = {key: value for key, value in inner.items() if key != "__version__"}
    content = {key: inner if key in ("values", "__settings__") else value for key, value in content.items()}
    path = write(tmp_path, content)

    assert load_config(tmp_path, {}).main.bindings_map == {"my_dummy": "dummy_binding"}
    migrate(tmp_path)
    assert yaml.safe_load(path.read_text()) == {"__version__": VERSION, **inner}


def test_a_database_of_configguard_loads(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "main_config.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE config (key TEXT PRIMARY KEY, value BLOB)")
        rows = [
            ("__configguard_version__", b'"0.3.2"'),
            ("__configguard_schema__", b'{"server.port": {}}'),
            ("server.port", b"9700"),
            ("server.reload", b"true"),
            ("bindings_map.my_dummy", b'"dummy_binding"'),
            ("defaults.ttt_binding", b'"my_dummy"'),
        ]
        database.executemany("INSERT INTO config VALUES (?, ?)", rows)
        database.commit()

    loaded = load_config(tmp_path, {})

    assert loaded.main.server.port == 9700
    assert loaded.main.defaults.ttt_binding == "my_dummy"
    assert any("server.reload is not used any more" in warning for warning in loaded.warnings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main_config.db"]


def test_an_older_instance_file_loads_without_the_keys_that_are_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, CONFIG_0_3)
    path = write(tmp_path, INSTANCE_0_3, "bindings/my_dummy.yaml")

    found = read_instance(load_config(tmp_path, {}), "my_dummy", DummySettings, {})

    assert found == {"type": "dummy_binding", "binding_instance_name": "my_dummy", "delay": 0.1}
    assert f'{path}: "mode" is not used any more.' in caplog.messages
    write(tmp_path, {**INSTANCE_0_3, "__version__": VERSION}, "bindings/my_dummy.yaml")
    assert "mode" in read_instance(load_config(tmp_path, {}), "my_dummy", DummySettings, {})


def test_migrating_0_3_rewrites_both_files_and_keeps_comments(tmp_path: Path) -> None:
    text = yaml.safe_dump(CONFIG_0_3, sort_keys=False).replace("server:", "# the server\nserver:")
    path = write(tmp_path, text.replace("port: 9601", "port: 9601 # mine\n  reload: true"))
    instance = write(tmp_path, INSTANCE_0_3, "bindings/my_dummy.yaml")

    upgrade = migrate(tmp_path)

    assert path.read_text() == text.replace("port: 9601", "port: 9601 # mine").replace("0.3.2", VERSION)
    assert yaml.safe_load(instance.read_text()) == {
        "__version__": VERSION,
        "type": "dummy_binding",
        "binding_instance_name": "my_dummy",
        "delay": 0.1,
    }
    assert upgrade.notes == (
        f"{path}: server.reload is not used any more.",
        f"{instance}: mode is not used any more.",
    )
    assert load_config(tmp_path, {}).warnings == ()
    assert (tmp_path / "main_config.yaml.bak").exists()
    assert migrate(tmp_path).documents == ()


# --- 0.2 ---


def check_0_2(main: Any) -> None:
    assert main.server.port == 9600
    assert main.paths.personalities_folder == "personal_personalities/"
    assert main.paths.models_folder == "my_models/"
    assert main.security.allowed_api_keys == ("user1_key_abc123",)
    assert main.defaults.ttt_binding == "default_dummy"
    assert main.bindings_map == {"default_dummy": "dummy_binding", "gone": "hf_binding"}
    assert main.webui.enable_ui is True
    assert main.logging.log_level == "DEBUG"


def test_a_file_of_0_2_loads_with_the_instances_that_it_holds(tmp_path: Path) -> None:
    path = write(tmp_path, CONFIG_0_2, "main_config.toml")

    loaded = load_config(tmp_path, {})

    check_0_2(loaded.main)
    assert read_instance(loaded, "default_dummy", DummySettings, {}) == {
        "type": "dummy_binding",
        "binding_instance_name": "default_dummy",
        "delay": 1,
        "default_model": "phi3:mini",
    }
    for note in (
        "bindings is now bindings_map, with one file for each instance.",
        "defaults.ttt_model is now default_model of the instance default_dummy.",
        'paths.personalities_folder is "personal_personalities/", which was its default.',
        "server.port is 9600, which was its default.",
        "server.workers is not used any more.",
        "defaults.tti_model is not used any more.",
        "webui.build_directory is not used any more.",
        "personalities_config.lollms.max_execution_retries is not used any more.",
    ):
        assert f"{path}: {note}" in loaded.warnings


def test_migrating_0_2_gives_every_instance_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, CONFIG_0_2, "main_config.toml")

    upgrade = migrate(tmp_path)

    assert "# only me" in path.read_text()
    assert [document.path.name for document in upgrade.documents] == [
        "main_config.toml",
        "default_dummy.toml",
        "gone.toml",
    ]
    assert read(tmp_path / "bindings" / "default_dummy.toml").values == {
        "__version__": VERSION,
        "type": "dummy_binding",
        "delay": 1,
        "default_model": "phi3:mini",
    }
    kept = read(tmp_path / "bindings" / "gone.toml").values
    assert kept["model_name_or_path"] == "microsoft/phi-2", "of a type that is not there nothing is left out"
    loaded = load_config(tmp_path, {})
    check_0_2(loaded.main)
    assert loaded.warnings == ()
    assert read_instance(loaded, "default_dummy", DummySettings, {})["delay"] == 1


def test_the_config_toml_of_0_2_is_taken_over_from_elsewhere(tmp_path: Path) -> None:
    source = write(tmp_path, CONFIG_0_2, "config.toml")

    migrate(tmp_path / "lollms_configs", source)

    check_0_2(load_config(tmp_path / "lollms_configs", {}).main)
    assert source.read_text() == CONFIG_0_2
    with pytest.raises(ConfigError, match=r"There is .*main_config\.toml already"):
        migrate(tmp_path / "lollms_configs", source)


# --- versions ---


@pytest.mark.parametrize("version", ["2.0.1", "3", 99, "2.1"])
def test_a_file_of_a_newer_server_is_refused(tmp_path: Path, version: Any) -> None:
    write(tmp_path, {"__version__": version})

    with pytest.raises(ConfigError, match=f"written by a newer server; this one knows {VERSION}"):
        load_config(tmp_path, {})


@pytest.mark.parametrize("version", ["new", "", True, [1], {"a": 1}, "v1"])
def test_a_version_that_is_none_is_refused(tmp_path: Path, version: Any) -> None:
    write(tmp_path, {"__version__": version})

    with pytest.raises(ConfigError, match=r"__version__ is .*, must be a version such as"):
        load_config(tmp_path, {})


@pytest.mark.parametrize("version", [0.2, 0.3, "0.3", "0.3.2", "0.3.2-beta", 1, "1.9.9"])
def test_older_versions_as_people_and_programs_write_them(version: Any) -> None:
    assert upgrade_main({"__version__": version}, "x").older


@pytest.mark.parametrize(
    "content", [{"bindings": 1}, {"bindings": {"a": 1}}, {"server": 1, "paths": [], "defaults": ""}]
)
@pytest.mark.parametrize("version", ["0.2", "0.3"])
def test_a_file_of_the_wrong_shape_is_an_error_and_no_crash(
    tmp_path: Path, content: Any, version: str
) -> None:
    write(tmp_path, {"__version__": version, **content})

    try:
        load_config(tmp_path, {})
    except ConfigError as error:
        assert "must be a mapping" in error.message


def test_the_migrations_are_in_order_and_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "migration.md").read_text("utf-8")

    goals = [goal for goal, _ in MIGRATIONS]
    assert goals == sorted(goals)
    assert goals[-1] == VERSION
    for key in (
        "bindings",
        "defaults.ttt_model",
        "server.port",
        "paths.personal_personalities_folder",
        "server.host",
    ):
        assert f"`{key}`" in page
