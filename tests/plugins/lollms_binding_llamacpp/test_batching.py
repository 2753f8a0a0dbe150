"""Many requests at once: answers as alone, prompts read once, nothing known to others, everything given back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_binding_llamacpp.context import CacheFull
from lollms_binding_llamacpp.engine import Engine, EngineSpec
from lollms_binding_llamacpp.job import Job, Piece, Result
from lollms_binding_llamacpp.library import GUIDE
from lollms_binding_llamacpp.native import Stopped
from lollms_binding_llamacpp.parameters import Sampling
from lollms_binding_llamacpp.scheduler import Scheduler
from lollms_kernel.errors import GenerationFailed
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Message, Notice, Progress, TextDelta

QUESTIONS = [
    "How do I start the server?",
    "What is a personality?",
    "Who are you?",
    "hello",
    "What models can I use?",
    "How do I add a binding?",
    "Count from 1 to 5",
    "What is the opposite of hot?",
]
PERSONALITY = "You are a helpful pirate who knows everything about this server. " * 12
MakeBinding = Callable[..., Awaitable[LlamaCppBinding]]


@pytest.fixture
async def make_guide(tmp_path: Path, make_binding: MakeBinding) -> Callable[..., Awaitable[LlamaCppBinding]]:
    async def make(**settings: Any) -> LlamaCppBinding:
        return await make_binding(default_model=GUIDE, **settings)

    return make


async def answer(binding: LlamaCppBinding, question: str, **fields: Any) -> tuple[str, Finished, list[Chunk]]:
    request = GenerateRequest(id="r", model=GUIDE, messages=(Message("user", question),), **fields)
    async with aclosing(binding.generate(request)) as stream:
        chunks = [chunk async for chunk in stream]
    assert isinstance(chunks[-1], Finished)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta)), chunks[-1], chunks


async def scheduler_of(binding: LlamaCppBinding) -> Scheduler:
    assert binding._model.loaded is not None
    return await binding._model.loaded.engine.between_steps(lambda scheduler: scheduler)


async def test_batched_answers_are_those_given_alone(make_guide: Any) -> None:
    alone, together = await make_guide(parallel=1), await make_guide(parallel=4)
    for parameters in ({"temperature": 0}, {"temperature": 0.9, "seed": 5}):
        expected = [(await answer(alone, question, parameters=parameters))[0] for question in QUESTIONS]
        got = await asyncio.gather(
            *(answer(together, question, parameters=parameters) for question in QUESTIONS)
        )
        assert [text for text, _, _ in got] == expected
    figures = await together.engine_metrics(None)
    assert figures["n_busy_slots_per_decode"] > 2
    assert figures["requests_processing"] == figures["requests_deferred"] == 0


async def test_users_of_a_personality_have_it_read_once_even_all_at_the_same_time(make_guide: Any) -> None:
    binding = await make_guide(parallel=8)
    asked = [
        answer(
            binding, question, system=PERSONALITY, public_prefix=len(PERSONALITY), tenant=f"tenant {number}"
        )
        for number, question in enumerate(QUESTIONS)
    ]
    ends = [end for _, end, _ in await asyncio.gather(*asked)]

    cached = sorted(end.usage.cached_tokens for end in ends if end.usage)
    assert cached[0] == 0
    assert cached[1] == cached[-1] > 120
    figures = await binding.engine_metrics(None)
    total = sum(end.usage.prompt_tokens for end in ends if end.usage)
    assert figures["prompt_tokens_total"] == total - 7 * cached[1]


async def test_nothing_that_a_tenant_wrote_can_be_noticed_by_another(make_guide: Any) -> None:
    binding = await make_guide(parallel=4)
    secret = "The password of the vault is swordfish and nobody may know it. " * 4

    async def cached(tenant: str, system: str, public: int = 0, question: str = "hello") -> int:
        _, end, _ = await answer(binding, question, system=system, public_prefix=public, tenant=tenant)
        assert end.usage is not None
        return end.usage.cached_tokens

    # with nothing else in memory, one after the other
    assert await cached("a", secret) == 0
    before = (await binding.engine_metrics(None))["prompt_tokens_total"]
    assert await cached("b", secret) == 0
    read_by_b = (await binding.engine_metrics(None))["prompt_tokens_total"] - before
    assert await cached("a", secret) > 50
    # a public text is shared, the caller's own words after it are not, whatever they are
    system = PERSONALITY + secret
    assert await cached("a", system, len(PERSONALITY)) == 0
    shared = await cached("b", system, len(PERSONALITY))
    assert 0 < shared < await cached("a", system, len(PERSONALITY))
    assert await cached("c", PERSONALITY + "x", len(PERSONALITY)) == shared
    assert await cached("d", PERSONALITY + secret[:20], len(PERSONALITY)) == shared
    assert await cached("e", PERSONALITY[:-1] + "x" + secret, 0) == 0
    # who claims a public text without the operator's word for it gets nothing of it
    assert await cached("f", system, 0) == 0
    # nor does anybody wait for what another one is just reading
    binding_two = await make_guide(parallel=2)
    await answer(binding_two, "hello")
    scheduler = await scheduler_of(binding_two)
    figures = await binding_two.engine_metrics(None)
    both = [answer(binding_two, "hello", system=secret * 3, tenant=tenant) for tenant in ("a", "b")]
    ends = [end for _, end, _ in await asyncio.gather(*both)]
    assert [end.usage.cached_tokens for end in ends if end.usage] == [0, 0]
    after = await binding_two.engine_metrics(None)
    read = after["prompt_tokens_total"] - figures["prompt_tokens_total"]
    assert read == sum(end.usage.prompt_tokens for end in ends if end.usage)
    assert read_by_b > 50
    assert scheduler.processing == 0


async def test_slots_show_nothing_of_what_is_written(make_guide: Any) -> None:
    binding = await make_guide(parallel=2)
    await answer(binding, "swordfish", parameters={"stop": ["swordfish"], "temperature": 0})
    assert "swordfish" not in repr(await binding.slots(None))
    assert len(await binding.slots(None)) == 2


async def test_several_answers_to_one_prompt_read_it_once(make_guide: Any) -> None:
    binding = await make_guide(parallel=4)
    many = [
        answer(binding, "hello " * 40, parameters={"temperature": 1.5, "seed": seed, "max_tokens": 8})
        for seed in range(4)
    ]
    answers = await asyncio.gather(*many)
    prompt = answers[0][1].usage
    assert prompt is not None
    assert (await binding.engine_metrics(None))["prompt_tokens_total"] <= prompt.prompt_tokens + 3
    assert len({text for text, _, _ in answers}) > 1


async def test_a_long_prompt_is_read_in_parts_between_which_answers_go_on(
    make_model: Any, make_binding: MakeBinding
) -> None:
    make_model(n_ctx=4096)
    binding = await make_binding(n_ctx=4096, batch_size=128)
    running = binding.generate(
        GenerateRequest(id="a", model="alphabet.gguf", raw_prompt="?", parameters={"max_tokens": -1})
    )
    await anext(running)
    long = GenerateRequest(
        id="b",
        model="alphabet.gguf",
        raw_prompt="b" * 3000,
        parameters={"max_tokens": 1, "return_progress": True},
    )
    progress = [chunk async for chunk in binding.generate(long) if isinstance(chunk, Progress)]
    await running.aclose()

    steps = [chunk.step for chunk in progress]
    assert steps == sorted(steps)
    assert steps[-1] == progress[0].total == 3000
    assert len(steps) >= 3000 // 128
    assert progress[0].details["cache"] == 0
    assert progress[-1].details["time_ms"] > 0


@pytest.fixture
async def engine(make_model: Callable[..., Path]) -> AsyncIterator[Engine]:
    spec = EngineSpec(name="alphabet", path=make_model(n_ctx=4096), n_ctx=512, parallel=2, batch_size=32)
    engine = await Engine.load(spec)
    yield engine
    await engine.close()


async def finish(engine: Engine, tokens: bytes, sampling: Sampling, **fields: Any) -> tuple[str, Result]:
    stream = engine.start(Job(tokens=list(tokens), sampling=sampling, **fields))
    text = "".join([item.text async for item in stream.items() if isinstance(item, Piece)])
    return text, stream.result()


GREEDY = Sampling(temperature=0, max_tokens=300)


async def used(engine: Engine) -> tuple[int, int, int]:
    return await engine.between_steps(lambda s: (s.processing, len(s.pending), s.cache.used))


async def test_a_stop_in_every_phase_frees_the_slot(engine: Engine) -> None:
    endless = Sampling(temperature=0)
    answering = engine.start(Job(tokens=list(b"?"), sampling=endless))
    await anext(answering.items())
    reading = engine.start(
        Job(tokens=list(b"b" * 480), sampling=Sampling(temperature=0, return_progress=True))
    )
    await anext(reading.items())
    same = engine.start(Job(tokens=list(b"b" * 480), sampling=endless))
    queued = [engine.start(Job(tokens=list(b"?"), sampling=endless)) for _ in range(3)]
    for stream in (queued[1], same, reading, answering, queued[0], queued[2]):
        async with asyncio.timeout(30):
            await stream.stop()
        with pytest.raises(Stopped):
            stream.result()
    processing, pending, _ = await used(engine)
    assert (processing, pending) == (0, 0)
    text, result = await finish(engine, b"vwx", Sampling(temperature=0))
    assert text == "yz"
    assert result.slot in (0, 1)


async def test_when_the_memory_is_full_the_youngest_begins_again_and_all_answers_are_whole(
    engine: Engine,
) -> None:
    both = await asyncio.gather(*(finish(engine, b"?", GREEDY, tenant=tenant) for tenant in "ab"))
    assert [text for text, _ in both] == ["0?" * 150] * 2
    assert sum(result.parked for _, result in both) > 0
    assert [result.answer.reason for _, result in both] == ["limit", "limit"]


async def test_a_slot_may_be_chosen_and_is_waited_for(engine: Engine) -> None:
    running = engine.start(Job(tokens=list(b"?"), sampling=Sampling(temperature=0, id_slot=1)))
    await anext(running.items())
    waiting = asyncio.create_task(finish(engine, b"x", Sampling(temperature=0, id_slot=1)))
    _, other = await finish(engine, b"x", Sampling(temperature=0))
    assert other.slot == 0
    assert not waiting.done()
    await running.stop()
    assert (await waiting)[1].slot == 1
    assert (await finish(engine, b"x", Sampling(temperature=0, id_slot=3)))[1].slot == 1


async def test_a_failing_step_ends_only_who_makes_it_fail(engine: Engine) -> None:
    def spoil(scheduler: Scheduler) -> None:
        decode = scheduler.context.decode

        def spoilt(batch: Any, start: int = 0, count: int | None = None) -> None:
            end = batch.count if count is None else start + count
            if (batch.tokens[start:end] == ord("!")).any():
                raise GenerationFailed("A bad token.")
            decode(batch, start, count)

        scheduler.context.decode = spoilt  # type: ignore[method-assign]

    await engine.between_steps(spoil)
    good = asyncio.create_task(finish(engine, b"?", GREEDY))
    bad = engine.start(Job(tokens=list(b"abc!"), sampling=GREEDY))
    await bad.ended()
    with pytest.raises(GenerationFailed, match="bad token"):
        bad.result()
    assert (await good)[0] == "0?" * 150
    assert (await used(engine))[:2] == (0, 0)


async def test_a_full_memory_makes_steps_smaller_and_nobody_fails(engine: Engine) -> None:
    def narrow(scheduler: Scheduler) -> None:
        decode = scheduler.context.decode

        def narrowed(batch: Any, start: int = 0, count: int | None = None) -> None:
            if (batch.count - start if count is None else count) > 3:
                raise CacheFull
            decode(batch, start, count)

        scheduler.context.decode = narrowed  # type: ignore[method-assign]

    await engine.between_steps(narrow)
    short = Sampling(temperature=0, max_tokens=10)
    both = await asyncio.gather(finish(engine, b"b" * 40 + b"?", short), finish(engine, b"?", short))
    assert [text for text, _ in both] == ["0?" * 5] * 2


async def test_a_full_context_goes_on_where_that_is_wanted(
    make_guide: Any, make_model: Any, make_binding: Any
) -> None:
    make_model(n_ctx=512)
    for draft_max in (0, 4):
        binding = await make_binding(n_ctx=64, context_shift=True, parallel=2, draft_max=draft_max)
        request = GenerateRequest(
            id="r",
            model="alphabet.gguf",
            raw_prompt="?" * 10,
            want_tokens=True,
            parameters={"max_tokens": 300, "temperature": 0, "n_keep": 4},
        )
        chunks = [chunk async for chunk in binding.generate(request)]
        end = chunks[-1]
        assert isinstance(end, Finished)
        assert "".join(c.text for c in chunks if isinstance(c, TextDelta)) == "0?" * 150
        assert end.metadata["engine"]["truncated"] is True
        assert end.metadata["engine"]["tokens_cached"] < 64
        assert [c.code for c in chunks if isinstance(c, Notice)] == ["context_shifted"]


async def test_guessing_ahead_changes_nothing(make_guide: Any) -> None:
    plain, guessing = await make_guide(parallel=2), await make_guide(parallel=2, draft_max=6)
    for parameters in (
        {"temperature": 0},
        {"temperature": 0.8, "seed": 3},
        {"temperature": 0, "max_tokens": 9},
    ):
        for question in QUESTIONS[:5]:
            twice = f"{question} {question}"
            expected = (await answer(plain, twice, parameters=parameters))[:2]
            got = (await answer(guessing, twice, parameters=parameters))[:2]
            assert got[0] == expected[0]
            assert got[1].usage is not None
            assert expected[1].usage is not None
            assert got[1].usage.completion_tokens == expected[1].usage.completion_tokens
    figures = await guessing.engine_metrics(None)
    assert figures["spec_decode_num_drafts_total"] > 0
    assert figures["spec_decode_num_accepted_tokens_total"] > 0


async def test_old_prompts_come_back_from_host_memory(make_model: Any, make_binding: MakeBinding) -> None:
    make_model(n_ctx=512)
    binding = await make_binding(n_ctx=256, cache_ram=8, parallel=2)

    async def cached(text: str, tenant: str = "") -> int:
        request = GenerateRequest(
            id="r", model="alphabet.gguf", raw_prompt=text, tenant=tenant, parameters={"max_tokens": 2}
        )
        end = [chunk async for chunk in binding.generate(request)][-1]
        assert isinstance(end, Finished)
        assert end.usage is not None
        return end.usage.cached_tokens

    assert await cached("b" * 200) == 0
    assert await cached("c" * 200) == 0  # the first one has to go
    assert (await binding.engine_metrics(None))["cache_ram_bytes"] > 0
    assert await cached("b" * 200, "somebody else") == 0
    assert await cached("b" * 200) == 199


async def test_separate_memories_work_too(make_guide: Any) -> None:
    together, apart = await make_guide(parallel=1), await make_guide(parallel=4, kv_unified=False, n_ctx=4096)
    expected = [(await answer(together, question))[0] for question in QUESTIONS]
    got = await asyncio.gather(*(answer(apart, question) for question in QUESTIONS))
    assert [text for text, _, _ in got] == expected
    again = await asyncio.gather(*(answer(apart, question) for question in QUESTIONS))
    assert [text for text, _, _ in again] == expected


@pytest.mark.long
async def test_two_thousand_requests_with_stops_leave_nothing_behind(make_guide: Any) -> None:
    binding = await make_guide(parallel=4, n_ctx=256, draft_max=2, cache_ram=2)
    await answer(binding, "hello")
    scheduler = await scheduler_of(binding)
    dice = random.Random(7)
    done = {"finished": 0, "left": 0}

    async def one(number: int) -> None:
        parameters: dict[str, Any] = {
            "temperature": dice.choice([0, 0.8]),
            "max_tokens": dice.randint(1, 6),
            "cache_prompt": dice.random() < 0.8,
            "id_slot": dice.choice([-1, -1, -1, 2]),
            "n_probs": dice.choice([0, 0, 2]),
            "return_progress": dice.random() < 0.1,
        }
        if dice.random() < 0.05:
            parameters["grammar"] = 'root ::= "a" [a-z]*'
        request = GenerateRequest(
            id=str(number),
            model=GUIDE,
            messages=(Message("user", " ".join(dice.choices(QUESTIONS, k=dice.randint(1, 12)))),),
            tenant=dice.choice("abc"),
            parameters=parameters,
            want_tokens=dice.random() < 0.3,
        )
        stream = binding.generate(request)
        leave_after = dice.choice([0, 1, 3, 99, 99, 99])
        async with aclosing(stream):
            count = 0
            async for _ in stream:
                count += 1
                if count > leave_after:
                    done["left"] += 1
                    return
        done["finished"] += 1

    async def wave(numbers: range) -> None:
        tasks = [asyncio.create_task(one(number)) for number in numbers]
        for task in dice.sample(tasks, len(tasks) // 8):
            await asyncio.sleep(0)
            task.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks, return_exceptions=True)

    memory = []
    for first in range(0, 2000, 50):
        await wave(range(first, first + 50))
        memory.append(_resident())
    figures = await binding.engine_metrics(None)
    assert figures["requests_processing"] == figures["requests_deferred"] == 0
    assert all(not slot["is_processing"] for slot in await binding.slots(None))
    assert figures["requests_failed_total"] == 0
    assert done["finished"] > 600
    assert done["left"] > 200
    assert scheduler.cache._private == 0
    assert scheduler.cache.used <= scheduler.context.cells
    scheduler.cache.forget_everything()
    assert scheduler.cache.used == 0
    assert memory[-1] - memory[5] < 12 * 2**20, memory


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
