"""Secrets: never in listings, representations or errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from lollms_kernel.config import MainConfig, convert, load_config, redact
from lollms_kernel.config.schema import SecurityConfig
from lollms_kernel.contracts import InstanceSettings, Secret
from lollms_kernel.errors import ConfigError


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str = "me"
    password: Secret = ""


class Settings(InstanceSettings, frozen=True, kw_only=True):
    api_key: Annotated[Secret | None, Meta(description="The key.")] = None
    pin: Annotated[Secret, Meta(max_length=80)] = ""
    keys: tuple[Secret, ...] = ()
    named: dict[str, Secret] = msgspec.field(default_factory=dict)
    account: Account = Account()
    accounts: list[Account] = msgspec.field(default_factory=list)
    by_name: dict[str, Account | None] = msgspec.field(default_factory=dict)
    loose: dict[str, Any] = msgspec.field(default_factory=dict)
    plain: dict[str, str] = msgspec.field(default_factory=dict)
    folder: Path = Path("m")
    url: str = "http://x"


BASE = {"type": "t", "binding_instance_name": "n"}
secrets = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=4, max_size=40).map(
    lambda text: f"s3cr3t{text}"
)


def test_what_is_not_secret_stays() -> None:
    settings = convert(
        {**BASE, "api_key": "k", "plain": {"my_key": "v"}, "loose": {"n_ctx": [1]}}, Settings, "x"
    )

    assert redact(settings) == {
        **BASE,
        "default_model": None,
        "account": {"user": "me"},
        "accounts": [],
        "by_name": {},
        "loose": {"n_ctx": [1]},
        "plain": {"my_key": "v"},
        "folder": "m",
        "url": "http://x",
    }


def test_the_main_configuration_keeps_its_names_and_loses_its_keys() -> None:
    main = convert(
        {
            "security": {"allowed_api_keys": ["s3cr3t-1"], "encryption_key": "s3cr3t-2"},
            "bindings_map": {"openai_key": "openai_binding"},
            "transports": {"hub_token": {"enabled": True, "token": "s3cr3t-3", "max_tokens": 3}},
        },
        MainConfig,
        "x",
    )

    plain = redact(main)

    assert plain["security"] == {}
    assert plain["bindings_map"] == {"openai_key": "openai_binding"}
    assert plain["transports"] == {"hub_token": {"enabled": True, "max_tokens": 3}}
    assert "s3cr3t" not in repr(main.security)
    assert "s3cr3t" not in str(main.security.__rich_repr__())


@given(secrets)
def test_a_marked_secret_never_occurs_in_a_redaction(secret: str) -> None:
    account = {"user": "me", "password": secret}
    settings = convert(
        {
            **BASE,
            "api_key": secret,
            "pin": secret,
            "keys": ["a", secret],
            "named": {"a": secret},
            "account": account,
            "accounts": [account],
            "by_name": {"a": account, "b": None},
            "loose": {"api_key": secret, "deep": [{"auth-token": secret}], "password": {"x": secret}},
        },
        Settings,
        "x",
    )

    assert secret not in json.dumps(redact(settings))


@st.composite
def misplaced(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A secret at a place where one belongs, in a shape that is wrong there."""
    secret = draw(secrets)
    wrong = st.sampled_from([[secret], {"a": secret}, [[secret]], {"password": {"user": secret}}, secret * 9])
    account = wrong | st.fixed_dictionaries({"user": st.just(1), "password": wrong | st.just(secret)})
    shape = {
        "api_key": wrong,
        "pin": wrong,
        "keys": wrong | st.just({"0": secret}),
        "named": wrong | st.just([{"a": secret}]),
        "account": account,
        "accounts": account | st.lists(account),
        "by_name": account,
        "loose": st.just(secret) | st.just([secret]),
    }
    return secret, {**BASE, "url": 1, **draw(st.fixed_dictionaries({}, optional=shape))}


@given(misplaced())
def test_an_error_never_shows_a_secret(given_: tuple[str, dict[str, Any]]) -> None:
    secret, raw = given_

    with pytest.raises(ConfigError) as caught:
        convert(raw, Settings, "x")

    assert secret not in f"{caught.value.message}{caught.value.hint}{caught.value!r}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "text",
    [
        "security: s3cr3t",
        "security: [s3cr3t]",
        "security: {encryption_kye: s3cr3t}",
        "security: {encryption_key: [s3cr3t]}",
        "security: {allowed_api_keys: s3cr3t}",
        "security: {allowed_api_keys: {a: s3cr3t}}",
        "security: {allowed_api_keys: [[s3cr3t]]}",
        "security: {encryption_key: *s3cr3t}",
        "security: {encryption_key: !s3cr3t x}",
        "security: {encryption_key: 's3cr3t}",
        "security: {encryption_key: s3cr3t}\nserver: {port: x}",
        "transports: {socketio: s3cr3t}",
    ],
)
def test_an_error_of_the_main_file_never_shows_a_secret(tmp_path: Path, text: str) -> None:
    (tmp_path / "main_config.yaml").write_text(text)

    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path, {})
    assert "s3cr3t" not in caught.value.detail


def test_security_shows_how_many_keys_there_are() -> None:
    assert repr(SecurityConfig(allowed_api_keys=("a", "b"))) == (
        "SecurityConfig(allowed_api_keys=2, encryption_key=not set)"
    )
