"""The main file: where it is looked for, what is an error, what wins."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from lollms_kernel.config import LoadedConfig, MainConfig, create_folders, load_config, resolve_config_dir
from lollms_kernel.config.schema import MODEL_FOLDERS
from lollms_kernel.errors import ConfigError


def write(folder: Path, text: str, name: str = "main_config.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def load(folder: Path, text: str) -> LoadedConfig:
    write(folder, text)
    return load_config(folder, {})


def error_of(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return caught.value.message


def test_without_folder_everything_is_default(tmp_path: Path) -> None:
    loaded = load_config(tmp_path / "nowhere", {})

    assert loaded.main == MainConfig()
    assert loaded.file is None
    assert loaded.root == tmp_path
    assert loaded.config_dir == tmp_path / "nowhere"


def test_defaults_are_the_published_ones_but_for_loopback() -> None:
    plain = msgspec.json.decode(msgspec.json.encode(MainConfig()))

    assert plain["server"]["host"] == "127.0.0.1"
    assert plain["server"]["port"] == 9601
    assert plain["server"]["allowed_origins"] == [
        "http://localhost",
        "http://localhost:8000",
        "http://localhost:5173",
        "http://127.0.0.1",
        "http://127.0.0.1:8000",
        "http://127.0.0.1:5173",
    ]
    assert plain["paths"] == {
        "config_base_dir": "lollms_configs",
        "instance_bindings_folder": "bindings",
        "personalities_folder": "personal/personalities",
        "bindings_folder": "personal/bindings",
        "functions_folder": "personal/functions",
        "models_folder": "models",
        "example_personalities_folder": "zoos/personalities",
        "example_bindings_folder": "zoos/bindings",
        "example_functions_folder": "zoos/functions",
    }
    assert plain["security"] == {"allowed_api_keys": [], "encryption_key": None}
    assert plain["defaults"] == {
        **dict.fromkeys([f"{kind}_binding" for kind in ("ttt", "tti", "tts", "stt", "ttv", "ttm")]),
        "default_context_size": 4096,
        "default_max_output_tokens": 1024,
    }
    limits = {"gpu_strategy": "semaphore", "gpu_limit": 1, "queue_timeout": 120}
    assert plain["resource_manager"] == {**limits, "max_running": 64, "max_waiting": 256}
    assert plain["webui"] == {"enable_ui": False}
    assert plain["logging"] == {"log_level": "INFO", "level": 20, "format": "text"}
    assert plain["bindings_map"] == plain["personalities_config"] == plain["transports"] == {}


def test_values_of_the_file_count(tmp_path: Path) -> None:
    loaded = load(
        tmp_path / "conf",
        "__version__: 0.3.2\n"
        "server: {port: 8000, shutdown_grace: 1}\n"
        "defaults: {ttt_binding: a}\n"
        "bindings_map: {a: dummy_binding}\n"
        "personalities_config: {artbot: {enabled: false}, other: }\n"
        "transports: {wingman: {enabled: false}, socketio: }\n",
    )

    assert loaded.main.server.port == 8000
    assert loaded.main.server.shutdown_grace == 1.0
    assert loaded.main.bindings_map == {"a": "dummy_binding"}
    assert loaded.main.personalities_config["artbot"].enabled is False
    assert loaded.main.personalities_config["other"].enabled is True
    assert loaded.main.transports == {"wingman": {"enabled": False}, "socketio": {}}
    assert loaded.file == tmp_path / "conf" / "main_config.yaml"


@pytest.mark.parametrize("section", MainConfig.__struct_fields__)
def test_a_section_that_is_null_has_its_defaults(tmp_path: Path, section: str) -> None:
    assert load(tmp_path, f"{section}:\n").main == MainConfig()


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_file_is_all_defaults(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).main == MainConfig()


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    message = error_of(
        tmp_path,
        "server: {prot: 1, port: 99999, host: 'a b'}\n"
        "defaults: {default_context_size: 12, ttt_binding: lama}\n"
        "bindings_map: {llama: llamacpp_binding}\n"
        "logging: {log_level: info}\n"
        "webui: {enable_ui: 'yes'}\n"
        "resource_manager: [1]\n"
        "surver: {}\n",
    )

    first, *lines = message.splitlines()
    assert first == f"{tmp_path / 'main_config.yaml'}: 9 problems:"
    assert sorted(lines) == [
        "  defaults.default_context_size: is 12, must be an integer of at least 64.",
        '  defaults.ttt_binding: is "lama", which bindings_map does not have; did you mean `llama`?',
        '  logging.log_level: is "info", must be one of CRITICAL, DEBUG, ERROR, INFO, WARNING'
        "; did you mean `INFO`?",
        "  resource_manager: is a list, must be a mapping of keys to values.",
        '  server.host: is "a b", must be an IP address such as 127.0.0.1 or ::1, or a host name.',
        "  server.port: is 99999, must be an integer from 1 to 65535.",
        "  server.prot: unknown key; did you mean `port`?",
        "  surver: unknown key; did you mean `server`?",
        '  webui.enable_ui: is "yes", must be true or false.',
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("server: {port: 0}", "server.port: is 0, must be an integer from 1 to 65535."),
        (
            "server: {port: '80'}",
            'server.port: is "80", must be an integer from 1 to 65535: remove the quotes.',
        ),
        ("server: {port: true}", "server.port: is true, must be an integer from 1 to 65535."),
        ("server: {port: 80.5}", "server.port: is 80.5, must be an integer from 1 to 65535."),
        ("server: {port: }", "server.port: is empty (null), must be an integer from 1 to 65535."),
        (
            "server: {shutdown_grace: .nan}",
            "server.shutdown_grace: is nan, must be a number from 0 to 86400.",
        ),
        (
            "server: {shutdown_grace: .inf}",
            "server.shutdown_grace: is inf, must be a number from 0 to 86400.",
        ),
        ("port: 80", "port: unknown key; did you mean `server.port`?"),
        ("paths: {models_folder: 7}", "paths.models_folder: is 7, must be a path: put it in quotes."),
        ("paths: {models_folder: ''}", 'paths.models_folder: is "", must be a path.'),
        ('paths: {models_folder: "a\\0b"}', 'paths.models_folder: is "a\\x00b", must be a path.'),
        (
            "defaults: {tti_binding: 7}",
            "must be a name of letters, digits, `_`, `-` and `.` or null: put it in quotes.",
        ),
        ("defaults: {tti_binding: ../x}", 'defaults.tti_binding: is "../x", must be a name of letters'),
        ("bindings_map: {a/b: x}", 'bindings_map."a/b": is not a good key, must be a name of letters'),
        ("bindings_map: {'..': x}", 'bindings_map."..": is not a good key'),
        ('bindings_map: {"a\\n": x}', 'bindings_map."a\\n": is not a good key'),
        ('bindings_map: {a: 1, "\\x9b\\u202e": x}', 'bindings_map."\\x9b\\u202e": is not a good key'),
        ("bindings_map: {a: 1}", "bindings_map.a: is 1, must be text that is not empty: put it in quotes."),
        ("transports: {x: 1}", "transports.x: is a number (not shown), must be a mapping of keys to values."),
        ("personalities_config: {x: {on: 1}}", "a key that is not text; put it in quotes."),
        (
            "personalities_config: {x: {enable: 1}}",
            "personalities_config.x.enable: unknown key; did you mean `enabled`?",
        ),
        ("workers: {heartbeat_timeout: 1}", "must be greater than heartbeat_interval (2.0)."),
        (
            "workers: {restart_delay: 31}",
            "restart_delay_max: is 30.0, must be at least restart_delay (31.0).",
        ),
        ("- server", "holds a list where keys and values should be."),
        ("server", "holds text where keys and values should be."),
    ],
)
def test_an_error_says_where_what_and_what_is_allowed(tmp_path: Path, text: str, line: str) -> None:
    message = error_of(tmp_path, text)

    assert line in message
    assert message.startswith(str(tmp_path / "main_config.yaml"))


def test_unknown_key_without_near_one_lists_what_is_known(tmp_path: Path) -> None:
    message = error_of(tmp_path, "webui: {qqqqqqqq: 1}")

    assert message.endswith("webui.qqqqqqqq: unknown key; known here: enable_ui.")


@pytest.mark.parametrize("key", ["12345", "true", "1.5", "null", "''", "' a'", '"a\\n"', "[a]"])
def test_api_keys_must_be_text_and_are_never_shown(tmp_path: Path, key: str) -> None:
    message = error_of(tmp_path, f"security: {{allowed_api_keys: [good-key, {key}]}}")

    assert "security.allowed_api_keys[1]: is " in message
    assert "must be text that is not empty and has no blanks around it" in message
    assert "12345" not in message
    assert "good-key" not in message


def test_a_number_as_api_key_says_to_quote_it(tmp_path: Path) -> None:
    assert error_of(tmp_path, "security: {allowed_api_keys: [12345]}").endswith(
        "is a number (not shown), must be text that is not empty and has no blanks around it"
        " or a mapping of keys to values: put it in quotes."
    )


def test_default_binding_may_be_a_built_in_one_while_the_map_is_empty(tmp_path: Path) -> None:
    assert load(tmp_path, "defaults: {ttt_binding: guide}").main.defaults.ttt_binding == "guide"


def test_default_binding_is_not_blamed_for_a_broken_map(tmp_path: Path) -> None:
    message = error_of(tmp_path, "defaults: {ttt_binding: a}\nbindings_map: {a: 1, b: x}")

    assert "defaults" not in message


def test_two_main_files_are_an_error_that_names_both(tmp_path: Path) -> None:
    write(tmp_path, "", "main_config.yml")
    write(tmp_path, "", "main_config.json")

    with pytest.raises(ConfigError, match=r"main_config\.yml and main_config\.json"):
        load_config(tmp_path, {})


def test_a_backup_beside_the_main_file_is_no_second_one(tmp_path: Path) -> None:
    write(tmp_path, "broken: [", "main_config.yaml.bak")

    assert load(tmp_path, "server: {port: 1}").main.server.port == 1


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "main_config.yaml").mkdir()
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "main_config.yaml").symlink_to("gone")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "main_config.yaml")
    (tmp_path / "file").write_text("")

    for name, text in (
        ("folder", "is not a regular file"),
        ("link", "cannot be read: No such file or directory"),
        ("pipe", "is not a regular file"),
        ("file", "cannot be read: Not a directory"),
    ):
        with pytest.raises(ConfigError, match=text):
            load_config(tmp_path / name, {})


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    assert "larger than 1024 KiB" in error_of(tmp_path, "#" * (1024 * 1024 + 1))


def test_broken_utf8_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "main_config.yaml").write_bytes(b"server:\n  host: \xff\n")

    with pytest.raises(ConfigError, match="line 2: a byte that is not UTF-8"):
        load_config(tmp_path, {})


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeffserver: {port: 1}").main.server.port == 1


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, "server: {host: 127.0.0.2, port: 1}")

    server = load_config(tmp_path, {"LOLLMS_HOST": "::1", "LOLLMS_PORT": "65535"}).main.server
    untouched = load_config(tmp_path, {"LOLLMS_HOST": "", "LOLLMS_PORT": ""}).main.server

    assert (server.host, server.port) == ("::1", 65535)
    assert (untouched.host, untouched.port) == ("127.0.0.2", 1)


def test_the_process_environment_counts_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOLLMS_PORT", "1234")

    assert load_config(tmp_path).main.server.port == 1234


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", "80.5", "1_0", " 80", "true", "null", "9" * 5000])
def test_a_bad_port_variable_is_named(tmp_path: Path, port: str) -> None:
    with pytest.raises(ConfigError, match=r"LOLLMS_PORT is .* must be an integer from 1 to 65535") as caught:
        load_config(tmp_path, {"LOLLMS_PORT": port})
    assert len(caught.value.message) < 300


def test_a_variable_with_broken_bytes_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'LOLLMS_HOST is "\\udcff", must be'):
        load_config(tmp_path, {"LOLLMS_HOST": "\udcff"})


def test_a_bad_host_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'LOLLMS_HOST is "300\.1\.1\.1", must be an IP address'):
        load_config(tmp_path, {"LOLLMS_HOST": "300.1.1.1"})


def test_config_dir_comes_from_option_then_variable_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert resolve_config_dir("a", {"LOLLMS_CONFIG_DIR": "/b"}) == tmp_path / "a"
    assert resolve_config_dir(None, {"LOLLMS_CONFIG_DIR": "/b"}) == Path("/b")
    assert resolve_config_dir(None, {}) == tmp_path / "lollms_configs"


def test_paths_are_relative_to_the_root_but_instances_to_the_config_folder(tmp_path: Path) -> None:
    text = "paths: {models_folder: ../m, functions_folder: /f, example_bindings_folder: }"
    loaded = load(tmp_path / "base" / "conf", text)

    assert loaded.path("models_folder") == tmp_path / "m"
    assert loaded.path("functions_folder") == Path("/f")
    assert loaded.path("personalities_folder") == tmp_path / "base" / "personal" / "personalities"
    assert loaded.path("instance_bindings_folder") == tmp_path / "base" / "conf" / "bindings"
    assert loaded.path("config_base_dir") == tmp_path / "base" / "conf"
    with pytest.raises(ConfigError, match="example_bindings_folder is null"):
        loaded.path("example_bindings_folder")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert load(tmp_path, "paths: {models_folder: ~/m}").path("models_folder") == tmp_path / "home" / "m"


def test_folders_are_created_and_creating_them_again_is_fine(tmp_path: Path) -> None:
    loaded = load_config(tmp_path / "conf", {})

    assert create_folders(loaded) == []
    assert create_folders(loaded) == []
    assert sorted(folder.name for folder in (tmp_path / "models").iterdir()) == sorted(MODEL_FOLDERS)
    assert (tmp_path / "personal" / "personalities").is_dir()
    assert (tmp_path / "personal" / "functions").is_dir()


def test_a_folder_that_cannot_be_created_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "personal").write_text("in the way")

    warnings = create_folders(load_config(tmp_path / "conf", {}))

    assert [warning.split(":")[0] for warning in warnings] == [
        "paths.personalities_folder",
        "paths.functions_folder",
    ]
    assert (tmp_path / "models" / "gguf").is_dir()
