"""Secrets in files: encrypted, read with the right key only, kept as references, never in backups in clear."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.config import LoadedConfig, convert, load_config, read_instance
from lollms_kernel.config.encryption import VARIABLE, Keys, is_encrypted, new_key
from lollms_kernel.config.formats import FORMATS, Format
from lollms_kernel.config.references import escape, expand
from lollms_kernel.config.secrets import masked, redact
from lollms_kernel.config.store import open_instance, open_main, read
from lollms_kernel.contracts import InstanceSettings, Secret
from lollms_kernel.errors import ConfigError

KEY, OTHER = new_key(), new_key()
WITH_KEY, WITH_OTHER = {VARIABLE: KEY}, {VARIABLE: OTHER}

formats = pytest.mark.parametrize("form", FORMATS, ids=[form.name for form in FORMATS])


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str = ""
    password: Secret = ""


class Settings(InstanceSettings, frozen=True, kw_only=True):
    api_key: Secret | None = None
    accounts: tuple[Account, ...] = ()
    extra: dict[str, Any] = {}
    url: str = "http://x"
    size: int = 1


SETTINGS = {
    "api_key": "s3cr3t-1",
    "accounts": [{"user": "anna", "password": "s3cr3t-2"}, {"user": "bob", "password": ""}],
    "extra": {"hub_token": "s3cr3t-3", "n": 1},
    "url": "http://y",
}


def write(folder: Path, settings: Any = None, **main: Any) -> Path:
    """A configuration with one instance; the file of that instance."""
    (folder / "bindings").mkdir(exist_ok=True)
    (folder / "main_config.yaml").write_text(yaml.safe_dump({"bindings_map": {"one": "t"}, **main}))
    file = folder / "bindings" / "one.yaml"
    file.write_text(yaml.safe_dump(SETTINGS if settings is None else settings))
    return file


def loaded_from(folder: Path, environ: dict[str, str] | None = None) -> LoadedConfig:
    return load_config(folder, environ or {})


def instance(folder: Path, environ: dict[str, str] | None = None) -> Settings:
    raw = read_instance(loaded_from(folder, environ), "one", Settings, environ or {})
    return convert(raw, Settings, "x")


def seal(folder: Path, environ: dict[str, str]) -> None:
    """Encrypt the instance by an edit that has nothing to do with its secrets."""
    document = open_instance(loaded_from(folder, environ), "one", Settings, environ)
    document.set("size", 2)
    document.save()


# --- encryption ---


@formats
def test_a_save_encrypts_what_is_secret_and_nothing_else(tmp_path: Path, form: Format) -> None:
    write(tmp_path)
    (tmp_path / "bindings" / "one.yaml").unlink()
    file = tmp_path / "bindings" / f"one{form.extensions[0]}"
    file.write_bytes(form.write(SETTINGS))

    seal(tmp_path, WITH_KEY)

    content = read(file).values
    assert is_encrypted(content["api_key"])
    assert is_encrypted(content["accounts"][0]["password"])
    assert is_encrypted(content["extra"]["hub_token"])
    assert content["accounts"][1] == {"user": "bob", "password": ""}
    assert (content["url"], content["extra"]["n"]) == ("http://y", 1)
    assert b"s3cr3t" not in file.read_bytes()
    plain = instance(tmp_path, WITH_KEY)
    assert (plain.api_key, plain.accounts[0].password) == ("s3cr3t-1", "s3cr3t-2")
    assert plain.extra == SETTINGS["extra"]


def test_the_backup_of_a_file_that_gets_encrypted_is_encrypted_too(tmp_path: Path) -> None:
    file = write(tmp_path)

    seal(tmp_path, WITH_KEY)

    backup = file.with_name("one.yaml.bak")
    assert "s3cr3t" not in backup.read_text()
    assert "size" not in yaml.safe_load(backup.read_text())
    os.replace(backup, file)
    assert instance(tmp_path, WITH_KEY).api_key == "s3cr3t-1"


def test_without_a_key_everything_stays_readable(tmp_path: Path) -> None:
    file = write(tmp_path)

    seal(tmp_path, {})

    assert yaml.safe_load(file.read_text())["api_key"] == "s3cr3t-1"


def test_the_key_may_be_in_the_main_file_and_the_environment_wins(tmp_path: Path) -> None:
    file = write(tmp_path, security={"encryption_key": OTHER})
    seal(tmp_path, {})
    assert instance(tmp_path).api_key == "s3cr3t-1"
    with pytest.raises(ConfigError, match=f"cannot be decrypted with the key of {VARIABLE}"):
        instance(tmp_path, WITH_KEY)

    write(tmp_path, security={"encryption_key": OTHER})
    seal(tmp_path, WITH_KEY)
    assert is_encrypted(yaml.safe_load(file.read_text())["api_key"])
    assert instance(tmp_path, WITH_KEY).api_key == "s3cr3t-1"


def test_the_keys_of_the_main_file_are_encrypted_but_not_the_encryption_key(tmp_path: Path) -> None:
    hash_ = "sha256:" + "0" * 64
    keys = ["s3cr3t-1", {"name": "anna", "key": "s3cr3t-2"}, {"name": "bob", "hash": hash_}, "${KEY_3}"]
    write(tmp_path, security={"allowed_api_keys": keys, "encryption_key": KEY})
    document = open_main(tmp_path, {})

    assert document.encrypt() == 2
    document.save()

    text = (tmp_path / "main_config.yaml").read_text()
    assert "s3cr3t" not in text
    assert all(kept in text for kept in (KEY, hash_, "${KEY_3}"))
    security = loaded_from(tmp_path, {"KEY_3": "s3cr3t-3"}).main.security
    assert (security.allowed_api_keys[0], security.allowed_api_keys[3]) == ("s3cr3t-1", "s3cr3t-3")


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "is encrypted, and neither LOLLMS_ENCRYPTION_KEY nor security.encryption_key is set"),
        (WITH_OTHER, "cannot be decrypted with the key of LOLLMS_ENCRYPTION_KEY"),
        ({VARIABLE: "short"}, "is encrypted. LOLLMS_ENCRYPTION_KEY is no encryption key"),
    ],
)
def test_a_missing_or_wrong_key_is_an_error_of_that_instance(
    tmp_path: Path, environ: dict[str, str], reason: str
) -> None:
    file = write(tmp_path)
    seal(tmp_path, WITH_KEY)

    loaded = loaded_from(tmp_path, environ)
    with pytest.raises(ConfigError) as caught:
        read_instance(loaded, "one", Settings, environ)

    first, *lines = caught.value.message.splitlines()
    assert first == f"{file}: 3 problems:"
    assert f"  api_key: {reason}." in lines
    assert f"  accounts[0].password: {reason}." in lines
    assert KEY not in caught.value.detail
    assert "enc:" not in caught.value.detail


def test_a_damaged_value_is_an_error_that_shows_no_part_of_it(tmp_path: Path) -> None:
    write(tmp_path, {"api_key": "enc:gAAAAAbroccoli"})

    with pytest.raises(ConfigError, match="api_key: cannot be decrypted") as caught:
        instance(tmp_path, WITH_KEY)
    assert "broccoli" not in caught.value.detail


def test_several_keys_read_and_the_first_one_writes(tmp_path: Path) -> None:
    file = write(tmp_path)
    seal(tmp_path, WITH_KEY)

    assert instance(tmp_path, {VARIABLE: f"{OTHER}, {KEY}"}).api_key == "s3cr3t-1"
    write(tmp_path)
    seal(tmp_path, {VARIABLE: f"{OTHER},{KEY}"})
    assert instance(tmp_path, WITH_OTHER).api_key == "s3cr3t-1"
    assert "s3cr3t" not in file.read_text()


@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    keys = Keys(KEY, VARIABLE)

    token = keys.encrypt(text)

    assert is_encrypted(token)
    assert keys.decrypt(token) == text
    assert len(text) < 6 or text not in token


def test_a_text_that_only_begins_like_an_encrypted_one_is_a_text(tmp_path: Path) -> None:
    write(tmp_path, {"url": "enc: the codec"})

    assert instance(tmp_path).url == "enc: the codec"


def test_a_file_that_was_encrypted_as_a_whole_is_read_and_rewritten(tmp_path: Path) -> None:
    file = write(tmp_path)
    whole = Keys(KEY, VARIABLE).encrypt(file.read_text()).removeprefix("enc:")
    file.write_text(whole)
    assert instance(tmp_path, WITH_KEY).api_key == "s3cr3t-1"
    with pytest.raises(ConfigError, match=r"one\.yaml is encrypted, and neither"):
        instance(tmp_path)

    seal(tmp_path, WITH_KEY)

    assert yaml.safe_load(file.read_text())["url"] == "http://y"
    assert instance(tmp_path, WITH_KEY).api_key == "s3cr3t-1"


# --- references ---


def test_references_stand_for_variables_in_main_and_instance_files(tmp_path: Path) -> None:
    settings = {"api_key": "${MY_KEY}", "url": "http://${HOST}:${PORT}/", "size": "${SIZE}"}
    write(tmp_path, settings, server={"port": "${PORT}"}, logging={"log_level": "${LEVEL}"})
    environ = {"MY_KEY": "s3cr3t", "HOST": "h", "PORT": "9800", "SIZE": "3", "LEVEL": "DEBUG"}

    found = instance(tmp_path, environ)

    assert (found.api_key, found.url, found.size) == ("s3cr3t", "http://h:9800/", 3)
    assert type(found.url) is str
    assert loaded_from(tmp_path, environ).main.server.port == 9800
    assert loaded_from(tmp_path, environ).main.logging.log_level == "DEBUG"


def test_an_unset_variable_is_named_with_its_place(tmp_path: Path) -> None:
    write(tmp_path, {"accounts": [{"password": "${GONE}"}]}, security={"allowed_api_keys": ["a", "${LOST}"]})

    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path, {})
    assert (
        "security.allowed_api_keys[1]: names the environment variable LOST, which is not set."
        in caught.value.message
    )
    with pytest.raises(ConfigError) as caught:
        instance(tmp_path, {"LOST": "x"})
    assert (
        "bindings/one.yaml: accounts[0].password: names the environment variable GONE" in caught.value.message
    )


@pytest.mark.parametrize("text", ["${", "${}", "${a b}", "${1}", "x${MY-KEY}y"])
def test_a_broken_reference_says_how_to_write_the_characters(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"url": text})

    with pytest.raises(
        ConfigError, match=r"url: has a `\$\{` that names no environment variable; .* write `\$\$\{`"
    ):
        instance(tmp_path)


@given(st.text() | st.sampled_from(["${A}", "$${A}", "$$${A}", "${", "$", "a${b}$${c}"]))
def test_an_escaped_text_is_taken_as_it_is(text: str) -> None:
    assert expand(escape(text), {}) == text


def test_a_wrong_value_from_a_variable_is_not_shown(tmp_path: Path) -> None:
    write(tmp_path, {"size": "${SIZE}"}, server={"port": "${PORT}"})

    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path, {"PORT": "s3cr3t"})
    assert "server.port: is ${PORT}, must be an integer from 1 to 65535." in caught.value.message
    with pytest.raises(ConfigError, match=r"size: is \$\{SIZE\}, must be an integer\."):
        instance(tmp_path, {"PORT": "1", "SIZE": "s3cr3t"})


def test_references_are_kept_by_edits_and_need_no_variable_there(tmp_path: Path) -> None:
    file = write(tmp_path, {"api_key": "${MY_KEY}", "url": "$${x}"}, server={"port": "${PORT}"})
    main = open_main(tmp_path, WITH_KEY)

    main.set("webui.enable_ui", True)
    main.save()
    seal(tmp_path, {**WITH_KEY, "PORT": "1"})

    assert "${PORT}" in (tmp_path / "main_config.yaml").read_text()
    assert yaml.safe_load(file.read_text()) == {"api_key": "${MY_KEY}", "url": "$${x}", "size": 2}


def test_an_escaped_secret_is_encrypted_as_what_it_means(tmp_path: Path) -> None:
    file = write(tmp_path, {"api_key": "a$${b}"})

    seal(tmp_path, WITH_KEY)

    assert is_encrypted(yaml.safe_load(file.read_text())["api_key"])
    assert instance(tmp_path, WITH_KEY).api_key == "a${b}"


# --- what is shown ---


def test_listings_show_neither_decrypted_values_nor_those_of_variables(tmp_path: Path) -> None:
    sealed = Keys(KEY, VARIABLE).encrypt("s3cr3t-url")
    write(tmp_path, {"api_key": "x", "url": "http://u:${PASSWORD}@h", "default_model": "${MODEL}"})
    environ = {**WITH_KEY, "PASSWORD": "s3cr3t", "MODEL": "m"}
    raw = read_instance(loaded_from(tmp_path), "one", Settings, environ)

    shown = redact(convert(raw, Settings, "x"), raw)

    assert (shown["url"], shown["default_model"]) == ("***", "${MODEL}")
    write(tmp_path, {"url": sealed})
    raw = read_instance(loaded_from(tmp_path, environ), "one", Settings, environ)
    assert convert(raw, Settings, "x").url == "s3cr3t-url"
    assert redact(convert(raw, Settings, "x"), raw)["url"] == "***"


def test_masked_values_keep_their_shape(tmp_path: Path) -> None:
    sealed = Keys(KEY, VARIABLE).encrypt("x")
    values = {**SETTINGS, "url": sealed, "default_model": "${MODEL}", "size": 3}

    assert masked(values, Settings) == {
        "api_key": "***",
        "accounts": [{"user": "anna", "password": "***"}, {"user": "bob", "password": "***"}],
        "extra": {"hub_token": "***", "n": 1},
        "url": "***",
        "default_model": "${MODEL}",
        "size": 3,
    }


@given(
    st.from_regex(r"s3cr3t[a-z]{4,10}", fullmatch=True), st.sampled_from(["wrong type", "misspelt", "nested"])
)
def test_masking_hides_misplaced_secrets_too(secret: str, how: str) -> None:
    shapes: dict[str, dict[str, Any]] = {
        "wrong type": {"accounts": [{"password": [secret]}], "api_key": {"value": secret}},
        "misspelt": {"accounts": [{"pasword": secret}], "api_kye": secret, "extra": {"auth-token": secret}},
        "nested": {"extra": {"a": [{"password": {"x": secret}}], "key": [secret]}},
    }

    assert secret not in str(masked(shapes[how], Settings))
