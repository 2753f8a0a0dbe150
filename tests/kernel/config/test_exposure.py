"""Addresses, and who may listen where without a key."""

from __future__ import annotations

from typing import Any

import pytest

from lollms_kernel.config import MainConfig, check_exposure, convert, is_loopback
from lollms_kernel.config.exposure import is_host
from lollms_kernel.errors import ConfigError

LOOPBACK = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "localhost", "LOCALHOST"]
REACHABLE = [
    "0.0.0.0",
    "::",
    "192.168.1.2",
    "::ffff:10.0.0.1",
    "fe80::1%eth0",
    "my-host",
    "a.example",
    "0x7f000001",
]
WRONG = [
    "",
    " ",
    "a b",
    "300.1.1.1",
    "0",
    "127.1",
    "[::1]",
    "-a",
    "a-",
    "a..b",
    "http://a",
    "a:80",
    "a\n",
    "a" * 64,
    "a." * 127 + "a",
]


def main(**sections: Any) -> MainConfig:
    return convert(sections, MainConfig, "x")


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, main())


@pytest.mark.parametrize("host", REACHABLE)
def test_another_address_needs_a_key_or_an_explicit_setting(host: str) -> None:
    assert not is_loopback(host)
    check_exposure(host, main(security={"allowed_api_keys": ["k"]}))
    check_exposure(host, main(server={"allow_insecure_bind": True}))

    with pytest.raises(ConfigError, match="no API key is set") as caught:
        check_exposure(host, main())
    assert "server.allow_insecure_bind: true" in str(caught.value.hint)


@pytest.mark.parametrize("host", WRONG)
def test_what_is_no_address_is_refused(host: str) -> None:
    assert not is_host(host)
    with pytest.raises(ConfigError, match="is no address"):
        check_exposure(host, main(server={"allow_insecure_bind": True}))
