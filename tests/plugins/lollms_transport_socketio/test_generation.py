"""`generate_text`: chunks, exactly one end, history, cancelling, and many clients at once."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from lollms_kernel.testing import ServerProcess

from .socketio_client import LAST, Client, connected

PLAYGROUND = {
    "n_predicts": 1024,
    "parameters": {
        "temperature": 0.9,
        "top_k": 50,
        "top_p": 0.95,
        "repeat_penalty": 1.2,
        "repeat_last_n": 40,
        "seed": -1,
    },
}
"""What the playground page of lollms sends."""


async def use(client: Client, binding: str) -> None:
    chosen = await client.ask("select_binding", {"binding_name": binding}, reply="select_binding")
    assert chosen["success"], chosen


async def seen(client: Client, prompt: str, **fields: Any) -> dict[str, Any]:
    """What reached the binding."""
    received: dict[str, Any] = json.loads(await client.answer(prompt, **fields))
    return received


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_raw_prompt_is_streamed_and_ends_once(server: ServerProcess, transport: str) -> None:
    prompt = " ".join(f"word{n}" for n in range(100))
    async with connected(server.url, transports=[transport]) as client:
        heard = await client.generate(prompt, personality=-1, **PLAYGROUND)

        assert heard[-1] == ("text_generated", {"text": prompt})
        assert [name for name, _ in heard[:-1]] == ["text_chunk"] * 100
        assert heard[0] == ("text_chunk", {"chunk": "word0", "type": 0})
        assert "".join(payload["chunk"] for _, payload in heard[:-1]) == prompt
        assert await client.answer("and again") == "and again"
        assert [name for name, _ in client.heard].count("text_generated") == 2


async def test_a_raw_prompt_reaches_the_binding_as_it_is_with_its_parameters(client: Client) -> None:
    await use(client, "seen")

    full = await seen(client, "as it is", personality=-1, **PLAYGROUND)
    partial = await seen(client, "x", parameters={"top_k": 7}, n_predicts=5)
    flat = await seen(client, "x", temperature=0.5, n_predict=6, n_crop=-1)
    absent = await seen(client, "x")

    assert (full["prompt"], full["system"], full["messages"]) == ("as it is", None, [])
    assert full["parameters"] == {
        "max_tokens": 1024,
        "context_size": 4096,
        "temperature": 0.9,
        "top_k": 50,
        "top_p": 0.95,
        "repeat_penalty": 1.2,
        "repeat_last_n": 40,
    }
    assert partial["parameters"] == {"max_tokens": 5, "context_size": 4096, "top_k": 7}
    assert flat["parameters"] == {"max_tokens": 6, "context_size": 4096, "temperature": 0.5}
    assert absent["parameters"] == {"max_tokens": 1024, "context_size": 4096}


async def test_only_the_last_tokens_are_used_where_the_client_crops(client: Client) -> None:
    assert await client.answer("one two", n_crop=3) == "two"
    assert await client.answer("one", n_crop=99) == "one"

    await use(client, "mute")
    *_, (name, payload) = await client.generate("one two", n_crop=3)
    assert name == "generation_error"
    assert "tokenization" in payload["error"]


async def test_a_personality_remembers_and_a_raw_prompt_does_not_disturb_it(client: Client) -> None:
    assert await client.answer("My name is Ada.", personality=0) == "My name is Ada."
    assert await client.answer("raw", personality=-1) == "raw"
    await use(client, "seen")

    received = await seen(client, "What is my name?", personality="lollms", n_predicts=9)

    assert received["system"] == "You are a helpful, honest and concise assistant."
    assert received["messages"] == [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "My name is Ada."},
        {"role": "user", "content": "What is my name?"},
    ]
    assert received["parameters"]["max_tokens"] == 9


async def test_an_empty_prompt_goes_on_with_the_last_answer(client: Client) -> None:
    await client.answer("Once upon a time", personality=0)
    await use(client, "other")
    await client.answer("", personality=0)
    await use(client, "seen")

    received = await seen(client, "And then?", personality=0)

    assert [turn["content"] for turn in received["messages"]] == [
        "Once upon a time",
        "Once upon a time from the other",
        "And then?",
    ]


async def test_thoughts_are_told_apart(client: Client) -> None:
    await use(client, "thinking")

    heard = await client.generate("hello")

    assert heard[-1] == ("text_generated", {"text": "Yes.", "thoughts": "hm"})
    assert "".join(payload["chunk"] for name, payload in heard if name == "text_chunk") == "Yes."


async def test_an_error_after_the_first_chunk_is_the_one_end_and_leaves_no_trace(client: Client) -> None:
    await use(client, "failing")

    heard = await client.generate("hello", personality=0)
    assert [name for name, _ in heard] == ["text_chunk", "text_chunk", "generation_error"]
    assert heard[-1][1].keys() == {"error"}

    await use(client, "echo")
    assert await client.answer("still here") == "still here"
    assert [name for name, _ in client.heard if name in LAST] == ["generation_error", "text_generated"]


@pytest.mark.parametrize("event", ["cancel_generation", "cancel_text_generation"])
async def test_cancelling_ends_the_generation_at_once_and_nothing_follows(client: Client, event: str) -> None:
    await use(client, "slow")
    await client.send("generate_text", {"prompt": "go", "personality": 0})
    await client.wait_for("text_chunk", count=2)

    await client.ask(event, {}, reply="generation_canceled")
    place = len(client.heard)
    await use(client, "seen")
    received = await seen(client, "next", personality=0)

    assert [name for name, _ in client.heard[place:]].count("text_chunk") == 1, "chunks came after the end"
    assert [name for name, _ in client.heard if name in LAST] == ["generation_canceled", "text_generated"]
    assert received["messages"][1]["content"].startswith("word word"), "what was said before stays said"


async def test_prompts_of_one_socket_wait_for_each_other_and_each_has_its_end(client: Client) -> None:
    for number in range(5):
        await client.send("generate_text", {"prompt": f"prompt {number}"})
    await client.wait_for("text_generated", count=5)

    assert [payload["text"] for name, payload in client.heard if name == "text_generated"] == [
        f"prompt {number}" for number in range(5)
    ]


async def test_cancelling_ends_waiting_prompts_too_each_with_its_own_end(client: Client) -> None:
    await use(client, "slow")
    for number in range(3):
        await client.send("generate_text", {"prompt": f"prompt {number}"})
    await client.wait_for("text_chunk")

    await client.send("cancel_generation", {})
    await client.wait_for("generation_canceled", count=3)
    await use(client, "echo")
    await client.answer("done")

    assert [name for name, _ in client.heard if name in LAST] == ["generation_canceled"] * 3 + [
        "text_generated"
    ]


async def test_a_choice_counts_for_the_prompts_after_it(client: Client) -> None:
    await client.send("select_binding", {"binding_name": "other"})
    await client.send("generate_text", {"prompt": "one"})
    await client.send("select_binding", {"binding_name": "echo"})
    await client.send("generate_text", {"prompt": "two"})
    await client.wait_for("text_generated", count=2)

    answers = [payload["text"] for name, payload in client.heard if name == "text_generated"]
    assert answers == ["from the other", "two"]


async def test_many_clients_are_answered_at_once_and_do_not_mix(server: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(server.url)) for _ in range(20)]
        prompts = [f"client {number} says {'word ' * number}end" for number in range(20)]
        async with asyncio.TaskGroup() as tasks:
            answers = [
                tasks.create_task(client.answer(prompt))
                for client, prompt in zip(clients, prompts, strict=True)
            ]

    assert [answer.result() for answer in answers] == prompts


async def test_choices_and_cancelling_and_leaving_concern_one_socket_alone(server: ServerProcess) -> None:
    async with connected(server.url) as mine, connected(server.url) as theirs:
        await use(mine, "slow")
        await use(theirs, "slow")
        for client in (mine, theirs):
            await client.send("generate_text", {"prompt": "go"})
            await client.wait_for("text_chunk")

        await mine.ask("cancel_generation", {}, reply="generation_canceled")
        heard = len(theirs.heard)
        await theirs.wait_for("text_chunk", count=3, after=heard)
        async with connected(server.url) as third:
            assert await third.answer("default") == "default"
        await theirs.wait_for("text_chunk", count=3, after=len(theirs.heard))
        assert "generation_canceled" not in [name for name, _ in theirs.heard]


# --- the queue ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow_server() -> Any:
    """One request runs, one waits; the GPU is one."""
    config = {
        "defaults": {"ttt_binding": "slow"},
        "resource_manager": {"max_running": 1, "max_waiting": 1, "queue_timeout": 60},
        "transports": {"socketio": {"max_waiting_prompts": 1}},
    }
    slow = {
        "type": "dummy_binding",
        "chunks": ["word "] * 3000,
        "stream_chunk_delay": 0.02,
        "requires_gpu": True,
    }
    with ServerProcess(config, {"slow": slow, "echo": {"type": "dummy_binding"}}) as server:
        yield server


async def test_buzzy_comes_only_when_the_queue_is_full_and_says_the_place(
    narrow_server: ServerProcess,
) -> None:
    async with AsyncExitStack() as stack:
        running, waiting, late = [
            await stack.enter_async_context(connected(narrow_server.url)) for _ in range(3)
        ]
        await running.send("generate_text", {"prompt": "go"})
        await running.wait_for("text_chunk")
        await waiting.send("generate_text", {"prompt": "go"})
        await late.ask("tokenize", {"prompt": "a"}, reply="tokenized")  # listings go on meanwhile
        assert waiting.heard == []

        await late.send("generate_text", {"prompt": "go"})
        buzzy = await late.wait_for("buzzy")
        busy = await late.wait_for("busy")
        assert buzzy["message"] == "I am buzzy. Come back later."
        assert busy["message"] == "I am busy. Come back later."
        assert buzzy["position"] == busy["position"] == 2
        assert buzzy["retry_after"] >= 1
        assert [name for name, _ in late.heard] == ["tokenized", "buzzy", "busy"]

        await running.wire.disconnect()  # leaving frees the place and the GPU
        await waiting.wait_for("text_chunk")
        await waiting.ask("cancel_generation", {}, reply="generation_canceled")
        await use(late, "echo")
        assert await late.answer("now") == "now"


async def test_one_socket_has_a_bounded_line_of_its_own(narrow_server: ServerProcess) -> None:
    async with connected(narrow_server.url) as client:
        await client.send("generate_text", {"prompt": "one"})
        await client.wait_for("text_chunk")
        await client.send("generate_text", {"prompt": "two"})
        await client.send("generate_text", {"prompt": "three"})

        assert (await client.wait_for("buzzy"))["position"] == 2
        await client.send("cancel_generation", {})
        await client.wait_for("generation_canceled", count=2)


# --- the real engine -----------------------------------------------------------------------------------------


async def test_what_does_not_fit_into_the_real_models_context_is_left_out_and_said() -> None:
    instances = {"guide": {"type": "llamacpp_binding", "n_ctx": 256}}
    with ServerProcess({"defaults": {"ttt_binding": "guide"}}, instances) as server:
        async with connected(server.url) as client:
            *_, raw = await client.generate("This is long. " * 200, n_predicts=16)
            for number in range(6):
                *_, last = await client.generate(
                    f"Question {number}: " + "what is it? " * 12, personality=0, n_predicts=24
                )

    assert raw[0] == "text_generated", raw
    assert "prompt_cut" in [notice["code"] for notice in raw[1]["notices"]]
    assert last[0] == "text_generated", last
    assert "left out" in last[1]["notices"][0]["message"]
