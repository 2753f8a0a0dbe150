"""Which addresses are of this machine."""

from __future__ import annotations

import pytest

from lollms_kernel.upstream import on_this_machine


@pytest.mark.parametrize(
    "address",
    ["http://localhost:11434", "localhost", "127.0.0.1:1", "https://[::1]:2/v1", "127.8.9.1", "a.localhost"],
)
def test_loopback_is_this_machine(address: str) -> None:
    assert on_this_machine(address)


@pytest.mark.parametrize(
    "address", ["http://192.168.1.2", "example.com", "http://localhost.example.com", "", "http://["]
)
def test_others_are_not(address: str) -> None:
    assert not on_this_machine(address)
