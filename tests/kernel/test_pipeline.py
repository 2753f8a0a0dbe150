"""One request through the kernel: order of parameters, errors, terminal chunks, and what is given back when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lollms_kernel.config.load import load_config
from lollms_kernel.contracts import Personality, PersonalityCard
from lollms_kernel.dummy import DummyBinding
from lollms_kernel.errors import (
    BindingNotFound,
    BindingUnavailable,
    Cancelled,
    InvalidRequest,
    LollmsError,
    ModelNotFound,
    NoBindingConfigured,
    NotSupported,
    PersonalityNotFound,
    QueueFull,
    QueueTimeout,
    ShuttingDown,
    UnsupportedInput,
)
from lollms_kernel.kernel import LocalKernel
from lollms_kernel.plugins import load_plugins
from lollms_kernel.types import (
    Chunk,
    Failed,
    Finished,
    GenerateRequest,
    Media,
    Message,
    Output,
    TextDelta,
    ThoughtDelta,
)

SLOW = {"chunks": ["a"] * 1000, "stream_chunk_delay": 0.01, "requires_gpu": True}

WITH_IMAGE = Message("user", "x", (Media("image", "input_image", b"x"),))


def ask(text: str = "hello", **fields: Any) -> GenerateRequest:
    return GenerateRequest(id=fields.pop("id", "r1"), messages=(Message("user", text),), **fields)


@pytest.fixture
async def make_kernel(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    opened: list[LocalKernel] = []

    async def make(instances: dict[str, dict[str, Any]], **config: Any) -> LocalKernel:
        folder = tmp_path / "lollms_configs"
        (folder / "bindings").mkdir(parents=True)
        for name, settings in instances.items():
            (folder / "bindings" / f"{name}.yaml").write_text(
                yaml.safe_dump({"type": "dummy_binding", **settings})
            )
        names = dict.fromkeys(instances, "dummy_binding")
        config.setdefault("defaults", {"ttt_binding": next(iter(instances))})
        (folder / "main_config.yaml").write_text(yaml.safe_dump({"bindings_map": names, **config}))
        kernel = LocalKernel(load_config(folder), load_plugins())
        await kernel.__aenter__()
        opened.append(kernel)
        return kernel

    yield make
    for kernel in opened:
        await kernel.__aexit__(None, None, None)


async def collect(kernel: LocalKernel, request: GenerateRequest) -> list[Chunk]:
    async with asyncio.timeout(30), kernel.stream(request) as chunks:
        return [chunk async for chunk in chunks]


async def received(kernel: LocalKernel, request: GenerateRequest) -> dict[str, Any]:
    chunks = await collect(kernel, request)
    facts: dict[str, Any] = json.loads("".join(c.text for c in chunks if isinstance(c, TextDelta)))
    return facts


def pirate(**fields: Any) -> Personality:
    return Personality(
        PersonalityCard(id="pirate", name="Pirate", conditioning="Talk like a pirate.", **fields)
    )


async def test_system_text_is_context_then_conditioning_or_the_requests_own_message(make_kernel: Any) -> None:
    kernel = await make_kernel({"echo": {"echo_system": True}})
    kernel._personalities.add(pirate())
    both = await received(kernel, ask(personality="pirate", system="It is late."))
    assert both["system"] == "It is late.\n\nTalk like a pirate."
    own = await received(kernel, ask(personality="pirate", system="It is late.", system_message="Be brief."))
    assert own["system"] == "It is late.\n\nBe brief."
    assert (await received(kernel, ask()))["system"] is None


async def test_parameters_defaults_then_personality_then_request(make_kernel: Any) -> None:
    kernel = await make_kernel(
        {"echo": {"echo_system": True}}, defaults={"ttt_binding": "echo", "default_context_size": 2048}
    )
    kernel._personalities.add(pirate(parameters={"temperature": 0.5, "top_k": 7, "max_tokens": 99}))
    facts = await received(
        kernel, ask(personality="pirate", parameters={"temperature": 0.1, "n_predict": 12})
    )
    assert facts["parameters"] == {"temperature": 0.1, "top_k": 7, "max_tokens": 12, "context_size": 2048}
    assert (await received(kernel, ask()))["parameters"] == {"max_tokens": 1024, "context_size": 2048}


class Instance(DummyBinding):
    """Says itself what is not asked for, and may understand an endless answer."""

    type_name = "speaks_for_itself"

    @property
    def default_parameters(self) -> dict[str, Any]:
        return {"temperature": 0.3, "n_predict": 77}


class EndlessInstance(Instance):
    type_name = "goes_on"
    endless = True


async def test_an_instance_has_defaults_and_minus_one_reaches_who_understands_it(make_kernel: Any) -> None:
    kernel = await make_kernel({"echo": {"echo_system": True}})
    instance = kernel._instances._instances["echo"]
    plain = instance.binding

    async def sent(kind: type[DummyBinding], **parameters: Any) -> dict[str, Any]:
        instance.binding = kind(plain.settings, plain.context)
        return dict((await received(kernel, ask(parameters=parameters)))["parameters"])

    assert (await sent(Instance))["max_tokens"] == 77
    assert (await sent(Instance, temperature=1.0))["temperature"] == 1.0
    assert (await sent(EndlessInstance, n_predict=-1))["max_tokens"] == -1
    assert (await sent(Instance, n_predict=-1))["max_tokens"] == 1024
    assert (await sent(DummyBinding, max_tokens=-1))["max_tokens"] == 1024


async def test_anti_prompts_stop_beside_the_requests_own_stop_texts(make_kernel: Any) -> None:
    kernel = await make_kernel({"echo": {"echo_system": True}})
    kernel._personalities.add(pirate(anti_prompts=("User:", "!@>")))
    facts = await received(kernel, ask(personality="pirate", parameters={"stop": ["END", "User:"]}))
    assert facts["parameters"]["stop"] == ["User:", "!@>", "END"]


async def test_stop_parameters_become_one_list(make_kernel: Any) -> None:
    kernel = await make_kernel({"echo": {"echo_system": True}})
    facts = await received(kernel, ask(parameters={"stop": "a", "stop_sequences": ["b", "a", ""]}))
    assert facts["parameters"]["stop"] == ["a", "b"]


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (ask(binding="nobody"), BindingNotFound),
        (ask(personality="nobody"), PersonalityNotFound),
        (ask(model="nobody"), ModelNotFound),
        (ask(generation_type="tti"), NoBindingConfigured),
        (ask(generation_type="tti", binding="echo"), NotSupported),
        (ask(parameters={"temperature": "hot"}), InvalidRequest),
        (ask(parameters={"max_tokens": 0}), InvalidRequest),
        (ask(parameters={"seed": 10**400}), InvalidRequest),
        (ask(parameters={"top_p": float("nan")}), InvalidRequest),
        (GenerateRequest(id="m", messages=(WITH_IMAGE,)), UnsupportedInput),
    ],
)  # fmt: skip
async def test_what_is_wrong_before_the_first_chunk_is_raised(
    make_kernel: Any, request_: Any, kind: type[LollmsError]
) -> None:
    kernel = await make_kernel({"echo": {}})
    with pytest.raises(kind):
        await collect(kernel, request_)
    assert kernel.admission.running == 0


async def test_thoughts_are_told_apart(make_kernel: Any) -> None:
    kernel = await make_kernel({"thinker": {"chunks": ["<th", "ink>hm", "m</thi", "nk>yes"]}})
    chunks = await collect(kernel, ask())
    assert "".join(c.text for c in chunks if isinstance(c, TextDelta)) == "yes"
    assert "".join(c.text for c in chunks if isinstance(c, ThoughtDelta)) == "hmm"


async def test_finished_says_who_answered_and_where_the_time_went(make_kernel: Any) -> None:
    kernel = await make_kernel({"echo": {}})
    last = (await collect(kernel, ask("hello there")))[-1]
    assert isinstance(last, Finished)
    assert last.metadata == {"binding": "echo", "model": "dummy-model"}
    assert last.usage is not None
    assert last.usage.total_tokens == 22
    assert last.timings.total is not None
    assert last.timings.first_chunk is not None


async def test_a_failure_after_the_first_chunk_is_the_last_chunk(make_kernel: Any) -> None:
    kernel = await make_kernel({"failing": {"chunks": ["a", "b", "c"], "fail_after": 2}})
    chunks = await collect(kernel, ask())
    assert [type(chunk) for chunk in chunks] == [TextDelta, TextDelta, Failed]


async def test_a_crashing_worker_fails_its_stream_and_comes_back(make_kernel: Any) -> None:
    kernel = await make_kernel({"crashing": {"chunks": ["a", "b"], "crash_after": 1}, "echo": {}})
    for _ in range(2):
        last = (await collect(kernel, ask()))[-1]
        assert isinstance(last, Failed)
        assert last.code == "worker_crashed"
        assert "SIGSEGV" in last.message
    assert (await collect(kernel, ask(binding="echo")))[0] == TextDelta("hello")


async def test_leaving_gives_the_lease_back(make_kernel: Any) -> None:
    kernel = await make_kernel({"slow": SLOW})
    async with kernel.stream(ask()) as chunks:
        await anext(chunks)
        assert kernel.gpu.status()["active"] == 1
    assert kernel.gpu.status()["active"] == 0
    assert kernel.admission.running == 0


async def test_a_cancelled_consumer_gives_everything_back(make_kernel: Any) -> None:
    kernel = await make_kernel({"slow": SLOW})
    begun = asyncio.Event()

    async def consume() -> None:
        async with kernel.stream(ask()) as chunks:
            async for _ in chunks:
                begun.set()

    task = asyncio.create_task(consume())
    await begun.wait()
    assert kernel.gpu.status()["active"] == 1
    task.cancel()
    await asyncio.wait([task])
    assert kernel.gpu.status()["active"] == 0
    assert kernel.admission.running == 0


async def test_the_lease_is_free_when_the_last_chunk_is_there_even_if_the_client_lingers(
    make_kernel: Any,
) -> None:
    kernel = await make_kernel({"quick": {"requires_gpu": True}})
    async with kernel.stream(ask()) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, Finished):
                assert kernel.gpu.status()["active"] == 0


async def test_cancel_by_id_ends_the_stream_and_only_ones_own(make_kernel: Any) -> None:
    kernel = await make_kernel({"slow": SLOW})
    async with kernel.stream(ask(id="mine", tenant="t1")) as chunks:
        await anext(chunks)
        assert not kernel.cancel("mine", tenant="t2")
        assert kernel.cancel("mine", tenant="t1")
        rest = [chunk async for chunk in chunks]
    assert isinstance(rest[-1], Failed)
    assert rest[-1].code == Cancelled.code
    assert not kernel.cancel("mine")


async def test_waiting_too_long_for_the_gpu_is_a_queue_timeout(make_kernel: Any) -> None:
    kernel = await make_kernel({"slow": SLOW}, resource_manager={"queue_timeout": 1})
    async with kernel.stream(ask()) as chunks:
        await anext(chunks)
        with pytest.raises(QueueTimeout):
            await collect(kernel, ask())


async def test_a_full_queue_refuses(make_kernel: Any) -> None:
    kernel = await make_kernel({"slow": SLOW}, resource_manager={"max_running": 1, "max_waiting": 1})
    async with kernel.stream(ask()) as chunks:
        await anext(chunks)
        waiter = asyncio.create_task(collect(kernel, ask()))
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFull):
            await collect(kernel, ask())
        waiter.cancel()
        await asyncio.wait([waiter])


async def test_drain_ends_running_streams_with_a_last_chunk_and_takes_no_more(make_kernel: Any) -> None:
    kernel = await make_kernel({"slow": SLOW})
    async with kernel.stream(ask()) as chunks:
        await anext(chunks)
        draining = asyncio.create_task(kernel.drain(0.05))
        rest = [chunk async for chunk in chunks]
    await draining
    assert isinstance(rest[-1], Failed)
    assert rest[-1].code == ShuttingDown.code
    with pytest.raises(ShuttingDown):
        await collect(kernel, ask())


async def test_a_broken_instance_leaves_the_others_up(make_kernel: Any) -> None:
    kernel = await make_kernel({"echo": {}, "broken": {"model": 5, "colour": "red"}})
    states = {status.name: status.state for status in kernel.instances()}
    assert states == {"echo": "ready", "broken": "failed"}
    with pytest.raises(BindingUnavailable, match=r"colour|model"):
        await collect(kernel, ask(binding="broken"))
    assert (await collect(kernel, ask()))[0] == TextDelta("hello")


async def test_images_fall_back_to_the_default_of_their_kind(make_kernel: Any) -> None:
    settings = {"input_modalities": ["text", "image"], "output_modalities": ["image"]}
    kernel = await make_kernel({"painter": settings}, defaults={"tti_binding": "painter"})
    chunks = await collect(kernel, ask("a cat", generation_type="i2i"))
    assert isinstance(chunks[0], Output)
    assert chunks[0].data.startswith(b"\x89PNG")
