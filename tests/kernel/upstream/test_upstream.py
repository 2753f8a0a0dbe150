"""Asking a service: limits, retries before the first item only, and errors of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx
import pytest

from lollms_kernel.errors import GenerationFailed, InvalidRequest, LollmsError, Unavailable
from lollms_kernel.upstream import Pauses, Service, Upstream, UpstreamSettings

SERVICE = Service(name="Example", instance="mine", address_setting="host")


async def no_pause(_seconds: float) -> None:
    """Pauses take no time here."""


def upstream(**limits: float) -> Upstream:
    settings = UpstreamSettings(type="t", binding_instance_name="mine", **limits)  # type: ignore[arg-type]
    return Upstream(SERVICE, settings, explain, Pauses(sleep=no_pause))


def explain(error: Exception) -> LollmsError | None:
    return InvalidRequest("explained") if isinstance(error, KeyError) else None


class Answers:
    """Each call takes the next entry: streams its items, raising those that are errors."""

    def __init__(self, *streams: list[str | Exception]) -> None:
        self.streams = list(streams)
        self.calls = 0

    async def __call__(self) -> AsyncIterator[str]:
        self.calls += 1
        return self._stream(self.streams.pop(0))

    async def _stream(self, items: list[str | Exception]) -> AsyncIterator[str]:
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item


async def test_a_refusal_before_the_first_item_is_tried_again() -> None:
    answers = Answers([Unavailable("busy")], [httpx.ReadError("gone")], ["a", "b"])

    assert [item async for item in upstream().stream(answers)] == ["a", "b"]
    assert answers.calls == 3


async def test_a_fault_after_the_first_item_is_not() -> None:
    answers, got = Answers(["a", httpx.ReadError("gone")], ["again"]), []

    with pytest.raises(Unavailable, match="broke"):
        async for item in upstream().stream(answers):
            got.append(item)
    assert (got, answers.calls) == (["a"], 1)


async def test_an_empty_stream_is_empty() -> None:
    assert [item async for item in upstream().stream(Answers([]))] == []


async def test_the_binding_explains_first_and_the_service_what_is_left() -> None:
    with pytest.raises(InvalidRequest, match="explained"):
        await anext(upstream().stream(Answers([KeyError("x")])))
    with pytest.raises(GenerationFailed, match="cannot be read") as raised:
        await anext(upstream().stream(Answers([ValueError("body with secret")])))
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


async def test_a_silent_service_is_not_asked_again() -> None:
    calls = 0

    async def silent() -> AsyncIterator[str]:
        nonlocal calls
        calls += 1
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(Unavailable, match="did not begin"):
        await anext(upstream(first_token_timeout=0.02).stream(silent))
    with pytest.raises(Unavailable, match="did not answer within"):
        await upstream(first_token_timeout=0.02).ask(silent)
    assert calls == 2


async def test_leaving_closes_what_the_service_streams() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[str]:
        async def items() -> AsyncIterator[str]:
            try:
                while True:
                    yield "x"
            finally:
                closed.set()

        return items()

    async with aclosing(upstream().stream(endless)) as stream:
        await anext(stream)
    assert closed.is_set()


async def test_ask_tries_again_and_gives_the_answer() -> None:
    errors: list[Exception] = [Unavailable("busy")]

    async def call() -> str:
        if errors:
            raise errors.pop()
        return "answer"

    assert await upstream().ask(call) == "answer"


async def test_a_time_limit_of_the_library_is_not_mistaken_for_ours() -> None:
    async def call() -> str:
        raise TimeoutError

    with pytest.raises(Unavailable, match="in time"):
        await upstream().ask(call)
