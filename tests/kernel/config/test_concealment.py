"""What the process knows to be secret gets into no error and no line of the log."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.config.concealment import guard_logs, remember, without_secrets
from lollms_kernel.errors import ConfigError, error_from_code

SECRET = "c0nceal-me-\"ö'"


@pytest.fixture(autouse=True)
def known() -> None:
    remember([SECRET])


def test_errors_of_every_kind_lose_it() -> None:
    for error in (
        ConfigError(f"no: {SECRET}", hint=f"try {SECRET}"),
        error_from_code("worker_crashed", f"no: {SECRET}", hint=f"try {SECRET}"),
    ):
        assert (error.message, error.hint, str(error)) == ("no: ***", "try ***", "no: ***")


@given(st.text(), st.text(), st.sampled_from([str, repr, json.dumps]))
def test_it_is_found_in_any_text(before: str, after: str, form: type[str]) -> None:
    assert SECRET not in without_secrets(before + form(SECRET) + after)
    assert form(SECRET)[1:-1] not in without_secrets(before + form(SECRET) + after)


def test_short_texts_and_hashes_are_no_secrets() -> None:
    remember(["abc", "", "sha256:" + "0" * 64, 5])

    assert without_secrets("abc sha256:" + "0" * 64) == "abc sha256:" + "0" * 64


def test_one_that_begins_with_another_goes_as_a_whole() -> None:
    remember(["begins-with", "begins-with-more"])

    assert without_secrets("x begins-with-more y begins-with z") == "x *** y *** z"


def test_the_log_loses_it_in_messages_arguments_and_tracebacks() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        guard_logs()
        guard_logs()
        try:
            raise KeyError(SECRET)
        except KeyError:
            logging.getLogger("somebody").exception("oh no, %s", SECRET)
    finally:
        root.removeHandler(handler)

    assert "oh no, ***" in stream.getvalue()
    assert "KeyError: " in stream.getvalue()
    assert "c0nceal" not in stream.getvalue()
