"""API keys in the configuration: three forms, one meaning, no contradictions."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from lollms_kernel.config import MainConfig, convert, load_config
from lollms_kernel.config.api_keys import digest, entries, hashed, is_hash, make_key, usable_key
from lollms_kernel.config.schema import ApiKeyEntry
from lollms_kernel.errors import ConfigError

KEY = "open-sesame"
HASH = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()


def load(folder: Path, *keys: Any, **main: Any) -> MainConfig:
    content = {"security": {"allowed_api_keys": list(keys)}, **main}
    (folder / "main_config.yaml").write_text(yaml.safe_dump(content))
    return load_config(folder, {}).main


def test_made_keys_are_long_and_never_the_same() -> None:
    keys = {make_key() for _ in range(100)}

    assert len(keys) == 100
    assert all(len(key) >= 43 and key.isascii() and key == key.strip() for key in keys)


def test_the_hash_is_the_one_that_every_tool_makes() -> None:
    assert hashed(KEY) == HASH
    assert is_hash(HASH)
    assert not is_hash(HASH[:-1])


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (KEY, digest(KEY).hex()[:16]),
        (HASH, digest(KEY).hex()[:16]),
        ({"name": "anna", "key": KEY}, "anna"),
        ({"name": "anna", "hash": HASH}, "anna"),
    ],
    ids=["key", "hash", "entry with key", "entry with hash"],
)
def test_every_form_has_the_digest_of_its_key(tmp_path: Path, item: Any, name: str) -> None:
    ((known, entry),) = entries(load(tmp_path, item).security)

    assert (known, entry.name) == (digest(KEY), name)


def test_limits_are_read(tmp_path: Path) -> None:
    limits = {
        "requests_per_minute": 3,
        "concurrent_streams": 1,
        "bindings": ["a"],
        "personalities": ["", "x"],
    }
    main = load(tmp_path, {"name": "anna", "key": KEY, **limits}, bindings_map={"a": "t"})

    assert main.security.allowed_api_keys == (
        ApiKeyEntry(
            name="anna",
            key=KEY,
            requests_per_minute=3,
            concurrent_streams=1,
            bindings=("a",),
            personalities=("", "x"),
        ),
    )
    assert KEY not in repr(main)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([{"name": "a"}], "security.allowed_api_keys[0]: must have either `key` or `hash`."),
        ([{"name": "a", "key": KEY, "hash": HASH}], "must have either `key` or `hash`."),
        ([{"key": KEY}], "security.allowed_api_keys[0].name: is missing, must be a name of letters"),
        (
            [{"name": "a b", "key": KEY}],
            'security.allowed_api_keys[0].name: is "a b", must be a name of letters',
        ),
        (
            [{"name": "a", "hash": "sha256:12"}],
            "[0].hash: is text (not shown), must be `sha256:` and 64 digits",
        ),
        ([{"name": "a", "kye": KEY}], "[0].kye: unknown key; did you mean `key`?"),
        (
            [{"name": "a", "key": KEY, "requests_per_minute": 0}],
            "must be an integer from 1 to 100000 or null.",
        ),
        ([KEY, {"name": "a", "hash": HASH}], "security.allowed_api_keys[1]: has the same key as entry 0."),
        (
            [{"name": "a", "key": "x"}, {"name": "a", "key": "y"}],
            'security.allowed_api_keys[1].name: is "a", as that of entry 0.',
        ),
        (
            [{"name": "a", "key": KEY, "bindings": ["ecko"]}],
            'allowed_api_keys[0].bindings[0]: is "ecko", which bindings_map does not have; did you mean `echo`?',
        ),
    ],
)
def test_what_cannot_be_is_told_without_the_key(tmp_path: Path, keys: list[Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *keys, bindings_map={"echo": "t"})

    assert message in caught.value.message
    assert KEY not in caught.value.detail
    assert HASH not in caught.value.detail


def test_the_same_plain_key_twice_is_no_contradiction(tmp_path: Path) -> None:
    assert len(load(tmp_path, KEY, KEY).security.allowed_api_keys) == 2


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ([], None),
        ([HASH, KEY], KEY),
        ([{"name": "a", "hash": HASH}], None),
        ([{"name": "a", "key": KEY, "bindings": []}], None),
        ([{"name": "a", "key": KEY, "requests_per_minute": 3}], KEY),
    ],
)
def test_our_own_commands_use_a_key_that_may_do_everything(keys: list[Any], found: str | None) -> None:
    main = convert({"security": {"allowed_api_keys": keys}}, MainConfig, "x")

    assert usable_key(main.security.allowed_api_keys) == found
