"""Refusals and network faults as errors of ours, for both HTTP stacks."""

from __future__ import annotations

import httpx
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.errors import (
    BindingUnavailable,
    GenerationFailed,
    InvalidRequest,
    LollmsError,
    ModelNotFound,
    NotSupported,
    PayloadTooLarge,
    Unavailable,
)
from lollms_kernel.upstream import Service

SERVICE = Service(
    name="Example",
    instance="mine",
    address_setting="base_url",
    key_setting="api_key",
    start_hint="Start it with `example serve`.",
)


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (301, BindingUnavailable, False),
        (400, InvalidRequest, False),
        (401, BindingUnavailable, False),
        (402, BindingUnavailable, False),
        (403, BindingUnavailable, False),
        (404, ModelNotFound, False),
        (408, Unavailable, True),
        (413, PayloadTooLarge, False),
        (422, InvalidRequest, False),
        (429, Unavailable, True),
        (500, Unavailable, True),
        (501, NotSupported, False),
        (503, Unavailable, True),
        (529, Unavailable, True),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[LollmsError], retryable: bool) -> None:
    error = SERVICE.refused(status, model="m")

    assert type(error) is kind
    assert error.retryable is retryable
    assert "Example" in error.message
    assert "'mine'" in error.message


def test_a_wrong_key_names_the_setting_that_holds_it() -> None:
    assert "`api_key`" in str(SERVICE.refused(401).hint)


def test_404_without_a_model_is_a_wrong_address() -> None:
    error = SERVICE.refused(404)

    assert isinstance(error, BindingUnavailable)
    assert "`base_url`" in str(error.hint)


def test_retry_after_of_the_service_reaches_the_client() -> None:
    assert SERVICE.refused(429, httpx.Headers({"Retry-After": "12"})).retry_after == 12
    assert SERVICE.refused(503, {"retry-after": "5"}).retry_after == 5


@pytest.mark.parametrize("stack", [httpx, httpx2])
@pytest.mark.parametrize(
    ("name", "kind", "retryable"),
    [
        ("ConnectError", BindingUnavailable, False),
        ("ConnectTimeout", BindingUnavailable, False),
        ("ProxyError", BindingUnavailable, False),
        ("ReadTimeout", Unavailable, False),
        ("PoolTimeout", Unavailable, True),
        ("ReadError", Unavailable, True),
        ("RemoteProtocolError", Unavailable, True),
        ("DecodingError", GenerationFailed, False),
    ],
)
def test_network_faults_of_both_stacks(
    stack: object, name: str, kind: type[LollmsError], retryable: bool
) -> None:
    error = SERVICE.explain(getattr(stack, name)("http://user:secret@host/?key=secret"))

    assert isinstance(error, kind)
    assert error.retryable is retryable
    assert "secret" not in error.detail


def test_nobody_there_says_how_to_start_it() -> None:
    error = SERVICE.explain(ConnectionRefusedError())

    assert str(error.hint).startswith("Start it with `example serve`.")


def test_an_error_of_ours_stays_what_it_is() -> None:
    error = InvalidRequest("mine")

    assert SERVICE.explain(error) is error


@given(st.text(min_size=8))
def test_what_the_library_says_is_never_repeated(text: str) -> None:
    for error in (ValueError(text), OSError(text), httpx.ReadError(text), KeyError(text)):
        assert text not in SERVICE.explain(error).detail
