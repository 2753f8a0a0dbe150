"""What counts in the end, and what people mean by what they type."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lollms_kernel.config import MainConfig
from lollms_kernel.config.effective import find_value, read_value, type_at, with_defaults
from lollms_kernel.config.places import parse_place
from lollms_kernel.errors import ConfigError


def test_defaults_stand_where_the_file_says_nothing() -> None:
    values = with_defaults({"server": {"port": 1}, "webui": None, "bindings_map": {"a": "t"}}, MainConfig)

    assert values["server"]["port"] == 1
    assert values["server"]["host"] == "127.0.0.1"
    assert values["webui"] == {"enable_ui": False}
    assert values["bindings_map"] == {"a": "t"}
    assert values["defaults"]["ttt_binding"] is None
    assert msgspec.convert(values, MainConfig).server.port == 1
    assert with_defaults({}, MainConfig) == msgspec.json.decode(msgspec.json.encode(MainConfig()))


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("server.port", "9700", 9700),
        ("server.port", "${PORT}", "${PORT}"),
        ("server.port", "many", "many"),
        ("server.host", "::1", "::1"),
        ("server.host", "  ::1 ", "::1"),
        ("server.allow_insecure_bind", "yes", True),
        ("server.shutdown_grace", "1", 1),
        ("server.allowed_hosts", "[a, 'b']", ["a", "b"]),
        ("defaults.ttt_binding", "null", None),
        ("defaults.ttt_binding", "'null'", "null"),
        ("security.encryption_key", "12345", "12345"),
        ("security.allowed_api_keys[0]", "12345", "12345"),
        ("security.allowed_api_keys[0]", "{name: a, key: b}", {"name": "a", "key": "b"}),
        ("bindings_map.a", "on", "on"),
        ("transports.socketio.port", "9000", 9000),
        ("transports.socketio", "{enabled: false}", {"enabled": False}),
        ("paths.models_folder", "C: \\x", "C: \\x"),
        ("server.host", "{", "{"),
    ],
)
def test_what_is_typed_becomes_what_fits(path: str, text: str, value: Any) -> None:
    found = read_value(text, type_at(MainConfig, parse_place(path)))

    assert (found, type(found)) == (value, type(value))


def test_a_path_that_is_not_there_is_answered_with_the_nearest() -> None:
    values = with_defaults({}, MainConfig)

    assert find_value(values, "server.port") == 9601
    with pytest.raises(ConfigError, match=r"There is no server\.prot; did you mean `server\.port`\?"):
        find_value(values, "server.prot")
