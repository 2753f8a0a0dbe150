"""Time limits on streams, and that nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from lollms_kernel.errors import Unavailable
from lollms_kernel.upstream import paced

LONG = 60.0


class Source:
    """A stream of the given items; `None` among them means silence for ever."""

    def __init__(self, *items: str | None) -> None:
        self.items = items
        self.closed = asyncio.Event()
        self.silent = asyncio.Event()

    async def open(self) -> AsyncIterator[str]:
        return self._stream()

    async def _stream(self) -> AsyncIterator[str]:
        try:
            for item in self.items:
                if item is None:
                    self.silent.set()
                    await asyncio.Event().wait()
                else:
                    yield item
        finally:
            self.closed.set()


async def test_items_pass_in_order_and_the_source_is_closed_at_the_end() -> None:
    source = Source("a", "b", "c")

    assert [item async for item in paced(source.open, first=LONG, idle=LONG)] == ["a", "b", "c"]
    assert source.closed.is_set()


async def test_given_nothing_comes_then_it_ends_after_the_first_limit_with_its_cure() -> None:
    source = Source(None)

    with pytest.raises(Unavailable, match=r"did not begin .* 0.02 s") as raised:
        await anext(paced(source.open, first=0.02, idle=LONG))
    assert "first_token_timeout" in str(raised.value.hint)
    assert not raised.value.retryable
    assert source.closed.is_set()


async def test_given_a_service_that_never_opens_its_stream_then_the_first_limit_holds_too() -> None:
    async def never() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(Unavailable, match="did not begin"):
        await anext(paced(never, first=0.02, idle=LONG))


async def test_given_a_greeting_then_the_first_limit_runs_on_until_the_answer_begins() -> None:
    source = Source("greeting", None)
    stream = paced(source.open, first=0.05, idle=LONG, begun=lambda item: item != "greeting")

    assert await anext(stream) == "greeting"
    with pytest.raises(Unavailable, match="did not begin"):
        await anext(stream)


async def test_given_silence_after_the_beginning_then_the_idle_limit_ends_it() -> None:
    source = Source("a", None)
    stream = paced(source.open, first=LONG, idle=0.02)

    assert await anext(stream) == "a"
    with pytest.raises(Unavailable, match="in the middle") as raised:
        await anext(stream)
    assert "idle_timeout" in str(raised.value.hint)
    assert source.closed.is_set()


async def test_a_slow_consumer_is_not_the_service_s_fault() -> None:
    source = Source("a", "b", "c")
    async with aclosing(paced(source.open, first=0.1, idle=0.1, begun=lambda item: item == "b")) as stream:
        assert await anext(stream) == "a"
        await asyncio.sleep(0.2)
        assert await anext(stream) == "b"
        await asyncio.sleep(0.2)
        assert await anext(stream) == "c"


async def test_leaving_closes_the_source() -> None:
    source = Source("a", "b")
    async with aclosing(paced(source.open, first=LONG, idle=LONG)) as stream:
        await anext(stream)

    assert source.closed.is_set()


async def test_cancelling_closes_the_source() -> None:
    source = Source("a", None)

    async def consume() -> None:
        async for _ in paced(source.open, first=LONG, idle=LONG):
            pass

    task = asyncio.create_task(consume())
    await asyncio.wait_for(source.silent.wait(), LONG)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert source.closed.is_set()


async def test_an_error_of_the_source_passes_unchanged() -> None:
    async def broken() -> AsyncIterator[str]:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await anext(paced(broken, first=LONG, idle=LONG))


async def test_a_timeout_of_the_source_itself_is_not_taken_for_a_limit_that_did_not_pass() -> None:
    async def gives_up() -> AsyncIterator[str]:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        await anext(paced(gives_up, first=LONG, idle=LONG))


async def test_a_vendor_s_stream_object_is_closed_through_its_close() -> None:
    class Vendor:
        closed = False

        def __aiter__(self) -> Vendor:
            return self

        async def __anext__(self) -> str:
            return "x"

        async def close(self) -> None:
            self.closed = True

    vendor = Vendor()

    async def start() -> AsyncIterator[str]:
        return vendor

    async with aclosing(paced(start, first=LONG, idle=LONG)) as stream:
        assert await anext(stream) == "x"
    assert vendor.closed
