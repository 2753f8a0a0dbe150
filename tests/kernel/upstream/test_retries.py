"""Trying again: when, how often and after what pause."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.errors import InvalidRequest, Unavailable
from lollms_kernel.upstream import Pauses, retry_after, retrying


class Clock:
    """Pauses that take no time and are written down."""

    def __init__(self, jitter: float = 0.0) -> None:
        self.slept: list[float] = []
        self.pauses = Pauses(sleep=self._sleep, jitter=lambda: jitter)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Attempts:
    """Raises the given errors one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


async def test_given_two_passing_refusals_when_two_retries_are_allowed_then_the_third_try_answers() -> None:
    clock, attempts = Clock(), Attempts(Unavailable("busy"), Unavailable("busy"))

    assert await retrying(attempts, retries=2, pauses=clock.pauses) == "answer"
    assert (attempts.made, clock.slept) == (3, [0.5, 1.0])


async def test_given_more_refusals_than_retries_then_the_last_one_is_raised() -> None:
    clock, attempts = Clock(), Attempts(Unavailable("one"), Unavailable("two"), Unavailable("three"))

    with pytest.raises(Unavailable, match="two"):
        await retrying(attempts, retries=1, pauses=clock.pauses)
    assert attempts.made == 2


async def test_given_an_error_that_stays_then_it_is_not_tried_again() -> None:
    clock, attempts = Clock(), Attempts(InvalidRequest("wrong"))

    with pytest.raises(InvalidRequest):
        await retrying(attempts, retries=5, pauses=clock.pauses)
    assert (attempts.made, clock.slept) == (1, [])


async def test_given_a_retry_after_then_the_pause_is_never_shorter() -> None:
    clock, attempts = Clock(jitter=1.0), Attempts(Unavailable("busy", retry_after=7))

    await retrying(attempts, retries=1, pauses=clock.pauses)
    assert 7 <= clock.slept[0] < 8


async def test_given_a_retry_after_beyond_all_patience_then_the_client_hears_it_at_once() -> None:
    clock, attempts = Clock(), Attempts(Unavailable("quota", retry_after=3600))

    with pytest.raises(Unavailable) as raised:
        await retrying(attempts, retries=3, pauses=clock.pauses)
    assert (raised.value.retry_after, attempts.made) == (3600, 1)


@given(st.integers(0, 1000), st.floats(0, 1))
def test_pauses_grow_to_a_limit_and_are_shortened_by_at_most_a_half(retry: int, jitter: float) -> None:
    pauses = Pauses(jitter=lambda: jitter)
    longest = min(0.5 * 2**retry, 8.0)

    assert longest / 2 <= pauses.before(retry, None) <= longest


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "3", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, 20.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=lambda: 100.0) == seconds


@given(st.text())
def test_no_header_breaks_it(text: str) -> None:
    seconds = retry_after({"retry-after": text, "retry-after-ms": text})

    assert seconds is None or seconds >= 0
