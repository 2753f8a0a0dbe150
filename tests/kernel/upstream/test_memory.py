"""What a service said is remembered for a while and asked for once."""

from __future__ import annotations

import asyncio

import pytest

from lollms_kernel.upstream import Memory


class Teller:
    """Answers how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self) -> int:
        self.asked += 1
        await self.go.wait()
        return self.asked


async def test_a_value_is_kept_until_its_time_is_over() -> None:
    now = 0.0
    memory: Memory[str, int] = Memory(10, clock=lambda: now)
    teller = Teller()

    assert await memory.recall("a", teller) == 1
    now = 9.9
    assert await memory.recall("a", teller) == 1
    assert memory.known("a") == 1
    now = 10.0
    assert memory.known("a") is None
    assert await memory.recall("a", teller) == 2


async def test_many_who_ask_at_once_share_one_question() -> None:
    memory: Memory[str, int] = Memory(10)
    teller = Teller()

    assert await asyncio.gather(*(memory.recall("a", teller) for _ in range(20))) == [1] * 20


async def test_an_error_is_not_kept_and_a_cancelled_asker_is_replaced() -> None:
    memory: Memory[str, int] = Memory(10)
    teller = Teller()
    teller.go.clear()

    async def fails() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await memory.recall("a", fails)
    first = asyncio.create_task(memory.recall("a", teller))
    second = asyncio.create_task(memory.recall("a", teller))
    await asyncio.sleep(0)
    first.cancel()
    teller.go.set()
    assert await asyncio.wait_for(second, 30) == 2
    assert first.cancelled()


async def test_forgetting_one_or_all() -> None:
    memory: Memory[str, int] = Memory(10)
    teller = Teller()
    await memory.recall("a", teller)
    await memory.recall("b", teller)

    memory.forget("a")
    assert (memory.known("a"), memory.known("b")) == (None, 2)
    memory.forget()
    assert memory.known("b") is None


async def test_no_more_than_its_size_is_kept() -> None:
    memory: Memory[int, int] = Memory(10, size=3)
    for key in range(5):
        await memory.recall(key, Teller())

    assert [memory.fresh(key) for key in range(5)] == [False, False, True, True, True]
