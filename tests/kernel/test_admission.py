"""The bounded queue: fair among tenants, nothing lost when somebody gives up."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.admission import FairQueue
from lollms_kernel.errors import QueueFull, QueueTimeout


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_tenants_take_turns_whatever_one_of_them_queues() -> None:
    queue = FairQueue(running=1, waiting=None, timeout=30)
    order: list[str] = []

    async def work(tenant: str) -> None:
        async with queue.turn(tenant):
            order.append(tenant)
            await asyncio.sleep(0)

    await queue.enter("first")
    tasks = [asyncio.create_task(work(tenant)) for tenant in ["greedy"] * 4 + ["modest", "other"]]
    await settle()
    queue.leave()
    await asyncio.gather(*tasks)
    assert order == ["greedy", "modest", "other", "greedy", "greedy", "greedy"]


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    queue = FairQueue(running=1, waiting=1, timeout=30)
    await queue.enter()
    waiter = asyncio.create_task(queue.enter())
    await settle()
    with pytest.raises(QueueFull) as caught:
        await queue.enter()
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1
    assert caught.value.position == 2
    queue.leave()
    await waiter


async def test_waiting_too_long_is_a_timeout_and_leaves_no_trace() -> None:
    queue = FairQueue(running=1, waiting=5, timeout=0.01)
    await queue.enter()
    with pytest.raises(QueueTimeout, match="Waited"):
        await queue.enter("late")
    assert (queue.running, queue.waiting) == (1, 0)


async def test_a_place_handed_to_somebody_who_gives_up_in_that_moment_goes_on_to_the_next() -> None:
    queue = FairQueue(running=1, waiting=5, timeout=30)
    await queue.enter()
    leaver, stayer = asyncio.create_task(queue.enter("a")), asyncio.create_task(queue.enter("b"))
    await settle()
    queue.leave()
    leaver.cancel()
    await asyncio.wait([leaver])
    await asyncio.wait_for(stayer, 5)
    queue.leave()
    assert (queue.running, queue.waiting) == (0, 0)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["enter", "cancel", "leave"])), max_size=40)
)
def test_whatever_happens_places_are_neither_lost_nor_made(steps: list[tuple[str, str]]) -> None:
    async def run() -> None:
        queue = FairQueue(running=2, waiting=None, timeout=30)
        tasks: list[asyncio.Task[float]] = []
        for tenant, step in steps:
            if step == "enter":
                tasks.append(asyncio.create_task(queue.enter(tenant)))
            elif step == "cancel" and tasks:
                tasks[-1].cancel()
            elif step == "leave" and queue.running and any(_entered(task) for task in tasks):
                tasks.remove(next(task for task in tasks if _entered(task)))
                queue.leave()
            await settle()
            inside = sum(_entered(task) for task in tasks)
            assert inside == queue.running <= 2
            assert not queue.waiting or queue.running == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def _entered(task: asyncio.Task[float]) -> bool:
    return task.done() and not task.cancelled()
