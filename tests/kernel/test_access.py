"""Keys, their limits and what is left of these, on an injected clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lollms_kernel.access import ANYBODY, Access, calling, check_caller_binding
from lollms_kernel.config import MainConfig, convert
from lollms_kernel.config.api_keys import hashed
from lollms_kernel.config.schema import SecurityConfig
from lollms_kernel.contracts import PersonalityCard
from lollms_kernel.errors import Forbidden, RateLimited, Unauthorized


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def security(*keys: Any) -> SecurityConfig:
    return convert({"security": {"allowed_api_keys": list(keys)}}, MainConfig, "x").security


def anna(**limits: Any) -> dict[str, Any]:
    return {"name": "anna", "key": "anna-key", **limits}


def access(*keys: Any, clock: Clock | None = None) -> Access:
    return Access(security(*keys), clock or Clock())


# --- who comes in ---


def test_without_keys_everybody_comes_in() -> None:
    open_ = access()

    assert not open_.needs_key
    assert open_.authenticate("") is ANYBODY
    assert open_.authenticate("whatever") is ANYBODY


@pytest.mark.parametrize(
    "form", ["plain", hashed("plain"), {"name": "p", "key": "plain"}, {"name": "p", "hash": hashed("plain")}]
)
def test_a_key_opens_in_every_form_and_the_hash_itself_does_not(form: Any) -> None:
    gate = access(form)

    assert gate.authenticate("plain").tenant == hashed("plain")[7:23]
    for wrong in ("plain ", "Plain", hashed("plain"), "p"):
        with pytest.raises(Unauthorized, match=r"^Invalid API Key provided\.$"):
            gate.authenticate(wrong)
    with pytest.raises(Forbidden, match="API Key required but not provided"):
        gate.authenticate("")


@given(st.text())
def test_no_other_text_opens(text: str) -> None:
    gate = access("the-only-one")

    with pytest.raises((Unauthorized, Forbidden)):
        gate.authenticate(text)


def test_where_a_key_is_required_nobody_comes_in_without_any() -> None:
    closed = access()
    closed.key_required = True

    assert closed.needs_key
    with pytest.raises(Unauthorized):
        closed.authenticate("whatever")


def test_replaced_keys_count_at_once_and_limits_go_on() -> None:
    gate = access("old", anna(requests_per_minute=1))
    grant = gate.authenticate("anna-key")
    gate.count(grant)

    gate.replace(security("new", anna(requests_per_minute=1)))

    assert gate.authenticate("new").tenant
    with pytest.raises(Unauthorized):
        gate.authenticate("old")
    with pytest.raises(RateLimited):
        gate.count(gate.authenticate("anna-key"))
    assert gate.revoked == {hashed("old")[7:23]}
    gate.replace(security("old"))
    assert gate.revoked == {hashed("new")[7:23], grant.tenant}


# --- requests per minute ---


def test_the_limit_holds_within_any_sixty_seconds() -> None:
    clock = Clock()
    gate = access(anna(requests_per_minute=2), clock=clock)
    grant = gate.authenticate("anna-key")
    gate.count(grant)
    clock.now += 40
    gate.count(grant)

    with pytest.raises(RateLimited) as caught:
        gate.count(grant)
    assert caught.value.retry_after == 20
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (429, "rate_limited", True)
    assert "'anna' may make 2 requests per minute" in caught.value.message
    clock.now += 20
    gate.count(grant)
    with pytest.raises(RateLimited):
        gate.count(grant)


@given(st.lists(st.floats(0, 40), max_size=40), st.integers(1, 5))
@example([1.463604428852623, 0.0], 1)  # where the sum of the window is rounded up
def test_never_more_than_the_limit_in_a_window(pauses: list[float], limit: int) -> None:
    clock = Clock()
    gate = access(anna(requests_per_minute=limit), clock=clock)
    grant = gate.authenticate("anna-key")
    taken: list[float] = []
    for pause in pauses:
        clock.now += pause
        try:
            gate.count(grant)
        except RateLimited as error:
            assert error.retry_after is not None and 0 < error.retry_after <= 60
        else:
            taken.append(clock.now)

    for start in taken:
        assert sum(start <= at < start + 60 for at in taken) <= limit


def test_without_a_limit_nothing_is_remembered() -> None:
    gate = access(anna())

    for _ in range(1000):
        gate.count(gate.authenticate("anna-key"))

    assert gate._recent == {}


# --- generations ---


def test_as_many_generations_as_the_key_allows() -> None:
    gate = access(anna(concurrent_streams=2))
    tenant = gate.authenticate("anna-key").tenant

    gate.check_stream(tenant, 1)

    with pytest.raises(RateLimited, match="may run 2 generations at once") as caught:
        gate.check_stream(tenant, 2)
    assert caught.value.retry_after == 1
    gate.check_stream("", 100)
    gate.check_stream("a tenant of a program without a gate", 100)


def test_a_generation_on_a_socket_counts_as_a_request_and_one_of_a_counted_request_does_not() -> None:
    gate = access(anna(requests_per_minute=2))
    grant = gate.authenticate("anna-key")

    with calling(grant, counted=True):
        for _ in range(5):
            gate.check_stream(grant.tenant, 0)
    with calling(grant, counted=False):
        gate.check_stream(grant.tenant, 0)
        gate.check_stream(grant.tenant, 0)
        with pytest.raises(RateLimited):
            gate.check_stream(grant.tenant, 0)


def test_a_revoked_key_starts_nothing_on_an_open_socket() -> None:
    gate = access("old", "other")
    grant = gate.authenticate("old")

    gate.replace(security("other"))

    with calling(grant, counted=False), pytest.raises(Unauthorized, match="was revoked"):
        gate.check_stream(grant.tenant, 0)


def test_a_socket_from_the_time_before_there_were_keys_starts_nothing() -> None:
    gate = access()
    grant = gate.authenticate("")

    gate.replace(security("new"))

    with calling(grant, counted=False), pytest.raises(Forbidden, match="API Key required"):
        gate.check_stream("", 0)
    gate.check_stream("", 0)  # a program of our own without a gate


# --- bindings and personalities ---


def test_only_the_allowed_bindings() -> None:
    gate = access(anna(bindings=["a", "b"]), "free")
    own, free = gate.authenticate("anna-key"), gate.authenticate("free")

    gate.check_binding(own.tenant, "a")
    gate.check_binding(free.tenant, "c")
    with pytest.raises(Forbidden, match="may not use the binding instance 'c'") as caught:
        gate.check_binding(own.tenant, "c")
    assert caught.value.hint == "It may use: a, b."
    with calling(own, counted=True), pytest.raises(Forbidden):
        check_caller_binding("c")
    check_caller_binding("c")


@pytest.mark.parametrize(
    ("allowed", "card", "fits"),
    [
        (["pirate"], PersonalityCard(id="fun/pirate", name="Pirate", folder="pirate"), True),
        (["Pirate"], PersonalityCard(id="fun/pirate", name="Pirate", folder="pirate"), True),
        (["fun/pirate"], PersonalityCard(id="fun/pirate", name="Pirate", folder="pirate"), True),
        (["other"], PersonalityCard(id="fun/pirate", name="Pirate", folder="pirate"), False),
        (["other"], PersonalityCard(id="", name=""), False),
        (["other", ""], PersonalityCard(id="", name=""), True),
        ([], PersonalityCard(id="", name=""), False),
    ],
)
def test_only_the_allowed_personalities(allowed: list[str], card: PersonalityCard, fits: bool) -> None:
    gate = access(anna(personalities=allowed))
    tenant = gate.authenticate("anna-key").tenant

    if fits:
        gate.check_personality(tenant, card)
    else:
        with pytest.raises(Forbidden, match="API key may"):
            gate.check_personality(tenant, card)
    gate.check_personality("", card)
