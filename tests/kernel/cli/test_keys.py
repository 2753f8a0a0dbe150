"""`lollms keys`: made, listed, taken away; never shown again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lollms_kernel.config.api_keys import hashed
from lollms_kernel.config.encryption import VARIABLE, new_key

from .commands import Workplace


def stored(workplace: Workplace) -> list[Any]:
    path: Path = workplace.root / "lollms_configs" / "main_config.yaml"
    found: list[Any] = yaml.safe_load(path.read_text())["security"]["allowed_api_keys"]
    return found


def test_add_prints_the_key_once_and_keeps_its_hash(workplace: Workplace) -> None:
    done = workplace.lollms("keys", "add", "anna")

    key = done.stdout.strip()
    assert done.returncode == 0
    assert len(key) > 43
    assert key not in done.stderr
    assert stored(workplace) == [{"name": "anna", "hash": hashed(key)}]
    assert key not in workplace.lollms("keys", "list").stdout


def test_add_keeps_limits_and_the_keys_that_are_there(workplace: Workplace) -> None:
    workplace.configure(
        config={"security": {"allowed_api_keys": ["old-key"]}, "bindings_map": {"echo": "dummy_binding"}}
    )

    workplace.lollms("keys", "add", "bob", "--requests-per-minute", "3", "--concurrent-streams", "1")
    workplace.lollms(
        "keys", "add", "eve", "--binding", "echo", "--personality", "pirate", "--personality", "", "--plain"
    )

    old, bob, eve = stored(workplace)
    assert old == "old-key"
    assert (bob["requests_per_minute"], bob["concurrent_streams"]) == (3, 1)
    assert (eve["bindings"], eve["personalities"]) == (["echo"], ["pirate", ""])
    assert eve["key"].startswith("lollms-")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("anna",), 'name: is "anna", as that of entry 0.'),
        (("a b",), 'name: is "a b", must be a name of letters'),
        (("bob", "--binding", "ecko"), "which bindings_map does not have; did you mean `echo`?"),
    ],
)
def test_a_key_that_cannot_be_is_not_made(workplace: Workplace, words: tuple[str, ...], message: str) -> None:
    workplace.lollms("keys", "add", "anna")

    done = workplace.lollms("keys", "add", *words)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(stored(workplace)) == 1


def test_list_tells_everything_but_the_key(workplace: Workplace) -> None:
    sealed = {VARIABLE: new_key()}
    workplace.configure(
        config={
            "security": {
                "allowed_api_keys": [
                    "s3cr3t-1",
                    {"name": "anna", "key": "s3cr3t-2", "requests_per_minute": 3},
                    {"name": "bob", "hash": hashed("s3cr3t-3")},
                    "${MY_KEY}",
                ]
            }
        }
    )
    workplace.lollms("config", "encrypt", env=sealed)
    workplace.lollms("keys", "add", "eve", "--plain")

    listed = workplace.lollms("keys", "list", "--json", env={**sealed, "MY_KEY": "s3cr3t-4"})

    rows = json.loads(listed.stdout)
    assert [(row["name"], row["stored"]) for row in rows] == [
        (None, "encrypted"),
        ("anna", "encrypted"),
        ("bob", "hash"),
        (None, "variable"),
        ("eve", "plain"),
    ]
    assert [row["id"] for row in rows[:4]] == [hashed(f"s3cr3t-{n}")[7:23] for n in (1, 2, 3, 4)]
    assert rows[1]["requests_per_minute"] == 3
    assert "s3cr3t" not in listed.stdout
    without = json.loads(workplace.lollms("keys", "list", "--json").stdout)
    assert [row["id"] for row in without[:2]] == [None, None], "what cannot be decrypted has no id"


def test_without_keys_the_list_says_who_may_come_in(workplace: Workplace) -> None:
    done = workplace.lollms("keys", "list")

    assert (done.returncode, done.stdout) == (0, "")
    assert "There is no key: whoever reaches the server may use it." in done.stderr


def test_revoke_takes_a_key_away_by_name_or_id(workplace: Workplace) -> None:
    workplace.configure(config={"security": {"allowed_api_keys": ["old-key"]}})
    workplace.lollms("keys", "add", "anna")

    assert workplace.lollms("keys", "revoke", "anna").returncode == 0
    assert stored(workplace) == ["old-key"]
    last = workplace.lollms("keys", "revoke", hashed("old-key")[7:23])
    assert stored(workplace) == []
    assert "It was the last one: the server asks for no key now." in last.stderr
    unknown = workplace.lollms("keys", "revoke", "anna")
    assert unknown.returncode == 2
    assert "There is no key of 'anna'. There are: none." in unknown.stderr


def test_revoking_the_last_key_of_an_exposed_server_says_what_that_means(workplace: Workplace) -> None:
    workplace.configure(config={"server": {"host": "0.0.0.0"}, "security": {"allowed_api_keys": ["k"]}})

    done = workplace.lollms("keys", "revoke", hashed("k")[7:23])

    assert "a running server refuses everybody, a stopped one will not start" in done.stderr
