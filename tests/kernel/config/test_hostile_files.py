"""TOML, JSON and SQLite files that are broken or mean harm: the same clear errors as for YAML, within bounds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.config import load_config
from lollms_kernel.config.formats import FORMATS, Format, parse_mapping
from lollms_kernel.config.plain import MAX_VALUES
from lollms_kernel.config.sqlite_format import TABLE
from lollms_kernel.errors import ConfigError

formats = pytest.mark.parametrize("form", FORMATS, ids=[form.name for form in FORMATS])


def error_of(name: str, data: bytes | str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_mapping(data.encode() if isinstance(data, str) else data, Path(name))
    assert len(caught.value.message) < 500
    assert caught.value.__cause__ is None
    return caught.value.message


def database(*statements: str, rows: list[tuple[Any, Any]] | None = None) -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements or (TABLE,):
            connection.execute(statement)
        if rows:
            connection.executemany("INSERT INTO config VALUES (?, ?)", rows)
        connection.commit()
        return connection.serialize()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "f.toml, at its end: not valid TOML: Invalid value."),
        ("a = 1\na = 2", "f.toml, at its end: not valid TOML: Cannot overwrite a value."),
        ("[a]\nb = 1\n[a]\n", "line 3, column 3: not valid TOML: Cannot declare ('a',) twice."),
        ("key = 's3cr3t", 'not valid TOML: Expected "\'".'),
        ("a = 's3cr3t' 's3cr3t'", "line 1, column 14: not valid TOML: Expected newline or end of document"),
        (f"a = {'1' * 5000}", "f.toml: a number or date that is none."),
        ("a = 9999-99-99", "f.toml"),
        ("a = " + "[" * 40 + "]" * 40, "f.toml: nested deeper than 32 levels."),
        ("a = " + "[" * 100_000, "f.toml: nested too deeply."),
        (".".join("a" * 500_000) + " = 1", "f.toml: nested deeper than 32 levels."),
        ("[" + " . ".join(['"a b"'] * 100_000) + "]", "f.toml: nested deeper than 32 levels."),
        ("a = [" + "1," * MAX_VALUES + "]", f"f.toml: more than {MAX_VALUES:,} values."),
        ("a = 1\x00", "not valid TOML"),
    ],
)
def test_toml(text: str, message: str) -> None:
    found = error_of("f.toml", text)

    assert message in found
    assert "s3cr3t" not in found


def test_dates_of_toml_are_texts_as_in_yaml() -> None:
    assert parse_mapping(b"a = 2024-01-31\nb = 07:32:00\n", Path("f.toml")) == {
        "a": "2024-01-31",
        "b": "07:32:00",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "f.json, line 1, column 2: not valid JSON: Expecting property name"),
        ('{"a": 1,\n "a": 2}', 'f.json: the key "a" is there twice.'),
        ('{"a": NaN}', "f.json: NaN is no value of JSON."),
        ('{"a": -Infinity}', "f.json: -Infinity is no value of JSON."),
        (f'{{"a": {"1" * 5000}}}', "f.json: a very long number."),
        ('{"key": "s3cr3t}', "line 1, column 9: not valid JSON: Unterminated string"),
        ('{"a": s3cr3t}', "line 1, column 7: not valid JSON: Expecting value."),
        ("[1]", "f.json holds a list where keys and values should be."),
        ('{"a":' * 40 + "1" + "}" * 40, "f.json: nested deeper than 32 levels."),
        ("[" * 200_000, "f.json: nested too deeply."),
        ('{"a": [' + "1," * MAX_VALUES + "1]}", f"f.json: more than {MAX_VALUES:,} values."),
    ],
)
def test_json(text: str, message: str) -> None:
    found = error_of("f.json", text)

    assert message in found
    assert "s3cr3t" not in found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "f.db is no SQLite file."),
        (b"SQLite format 3\x00", "f.db is a broken SQLite file, or not one of this server."),
        (b"SQLite format 3\x00" + b"\x01" * 5000, "f.db is a broken SQLite file"),
        (database()[:5000], "f.db is a broken SQLite file"),
        (database("CREATE TABLE other (a)"), "f.db has no table `config`."),
        (database("CREATE TABLE config (a, b)"), "f.db is a broken SQLite file"),
        (database(rows=[("a", "1"), ("a.b", "2")]), 'f.db, row "a.b": a.b cannot be set: a is neither'),
        (database(rows=[("a.b", "2"), ("a", "1")]), 'f.db, row "a": the key is there twice.'),
        (database(rows=[("a", "{")]), 'f.db, row "a", line 1, column 2: not valid JSON'),
        (database(rows=[("a", "s3cr3t")]), 'f.db, row "a", line 1, column 1: not valid JSON'),
        (database(rows=[("a", b"\xff")]), "f.db is a broken SQLite file"),
        (database(rows=[("a b", "1")]), 'f.db, row "a b": "a b" is no path of a key.'),
        (database(rows=[(".".join("a" * 40), "1")]), "f.db: nested deeper than 32 levels."),
        (
            database(
                "CREATE VIEW config AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
                " SELECT i AS key, i AS value FROM n"
            ),
            "f.db has no table `config`.",
        ),
        (
            database(
                "CREATE TABLE config (key TEXT, value TEXT AS (printf('%.*c', 900000, 'x')))",
                *["INSERT INTO config (key) VALUES ('a')"] * 20,
            ),
            "f.db",
        ),
    ],
)
def test_sqlite(data: bytes, message: str) -> None:
    found = error_of("f.db", data)

    assert message in found
    assert "s3cr3t" not in found


def test_a_database_that_lasts_for_ever_is_given_up() -> None:
    endless = (
        "CREATE TABLE config (key TEXT, value TEXT AS ("
        "replace(hex(zeroblob(400000)), '00', '1234567890123456789012345678901234567890') ))"
    )
    rows = ["INSERT INTO config (key) VALUES ('a')"] * 50

    assert error_of("f.db", database(endless, *rows))


def test_triggers_and_other_tables_do_nothing() -> None:
    data = database(
        TABLE,
        "CREATE TABLE victim (a)",
        "CREATE TRIGGER t AFTER INSERT ON config BEGIN DELETE FROM victim; END",
        rows=[("server.port", "9700"), ('bindings_map."a.b"', '"t"'), ("webui", "{}")],
    )

    assert parse_mapping(data, Path("f.db")) == {
        "server": {"port": 9700},
        "bindings_map": {"a.b": "t"},
        "webui": {},
    }


def test_reading_a_database_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "main_config.db"
    path.write_bytes(database(rows=[("server.port", "9700")]))
    path.chmod(0o400)

    assert load_config(tmp_path, {}).main.server.port == 9700
    assert [file.name for file in tmp_path.iterdir()] == ["main_config.db"]


@formats
@given(st.binary(max_size=300) | st.binary(max_size=50).map(lambda tail: b"SQLite format 3\x00" + tail))
def test_any_bytes_are_a_mapping_or_a_clear_error(form: Format, data: bytes) -> None:
    try:
        assert isinstance(parse_mapping(data, Path(f"f{form.extensions[0]}")), dict)
    except ConfigError as error:
        assert error.message.startswith("f.")
        assert len(error.message) < 500


@given(st.data())
def test_a_database_with_any_bytes_changed_is_a_mapping_or_a_clear_error(data: st.DataObject) -> None:
    whole = bytearray(database(rows=[("server.port", "9700"), ("bindings_map.a", '"t"')]))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(16, len(whole) - 1))] = data.draw(st.integers(0, 255))

    try:
        assert isinstance(parse_mapping(bytes(whole), Path("f.db")), dict)
    except ConfigError as error:
        assert error.message.startswith("f.db")


@formats
def test_errors_of_the_schema_are_the_same_in_every_format(tmp_path: Path, form: Format) -> None:
    path = tmp_path / f"main_config{form.extensions[0]}"
    path.write_bytes(form.write({"server": {"port": 99999, "prot": 1}, "security": {"encryption_key": 5}}))

    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path, {})

    first, *lines = caught.value.message.splitlines()
    assert first == f"{path}: 3 problems:"
    assert sorted(lines) == [
        "  security.encryption_key: is a number (not shown), must be text or null: put it in quotes.",
        "  server.port: is 99999, must be an integer from 1 to 65535.",
        "  server.prot: unknown key; did you mean `port`?",
    ]
