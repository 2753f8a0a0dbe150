"""Functions of the server as tools of a model: told to it, called for it, answered from, in bounded rounds."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import pytest

from lollms_kernel.contracts import Function
from lollms_kernel.errors import InvalidRequest
from lollms_kernel.tools import MAX_RESULT, generate_with_tools
from lollms_kernel.types import (
    Chunk,
    Failed,
    Finished,
    GenerateRequest,
    Info,
    Message,
    ModelInfo,
    Notice,
    TextDelta,
    ToolCall,
    Usage,
)

ABLE = ModelInfo(name="able", capabilities=("chat", "tools"))
UNABLE = ModelInfo(name="unable", capabilities=("chat",))
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


class Add(Function):
    name = "sums.add"
    description = "The sum."
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}

    async def call(self, arguments: Mapping[str, Any]) -> Any:
        if "a" not in arguments:
            raise InvalidRequest("a is missing", hint="Give it.")
        if arguments["a"] == "boom":
            raise RuntimeError("boom")
        if arguments["a"] == "long":
            return "x" * (MAX_RESULT + 1)
        return arguments["a"] + arguments["b"]


class Twin(Add):
    name = "sums_add"


FUNCTIONS = {"sums.add": Add(), "sums_add": Twin()}

Says = Callable[[GenerateRequest], list[Chunk]]


class Model:
    """Answers round by round what it is told to, and remembers what it was asked."""

    def __init__(self, *rounds: list[Chunk]) -> None:
        self._rounds = list(rounds)
        self.asked: list[GenerateRequest] = []

    async def once(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        for chunk in self._rounds.pop(0) if len(self._rounds) > 1 else self._rounds[0]:
            yield chunk


def calls(*arguments: str, name: str = "sums_add", text: str = "") -> list[Chunk]:
    made: list[Chunk] = [ToolCall(f"c{n}", name, given, n) for n, given in enumerate(arguments)]
    return [TextDelta(text), *made, Finished("tool_calls", Usage(10, 5))]


ANSWER: list[Chunk] = [TextDelta("It is 3."), Finished("stop", Usage(20, 7, 4))]


async def answer(model: Model, *functions: Any, info: ModelInfo = ABLE, rounds: int = 3) -> list[Chunk]:
    request = GenerateRequest(id="1", messages=(Message("user", "1 + 2?"),), functions=functions)
    return [chunk async for chunk in generate_with_tools(request, info, FUNCTIONS, rounds, model.once)]


def notices(chunks: list[Chunk]) -> list[str]:
    return [chunk.code for chunk in chunks if isinstance(chunk, Notice)]


async def test_a_call_is_carried_out_and_the_answer_comes_from_its_result() -> None:
    model = Model(calls('{"a": 1, "b": 2}', text="Let me see."), ANSWER)

    chunks = await answer(model, "sums.add")

    assert model.asked[0].functions == (
        {
            "type": "function",
            "function": {"name": "sums_add", "description": "The sum.", "parameters": Add.schema},
        },
    )
    call = ToolCall("c0", "sums_add", '{"a": 1, "b": 2}')
    assert model.asked[1].messages == (
        Message("user", "1 + 2?"),
        Message("assistant", "Let me see.", tool_calls=(call,)),
        Message("tool", "3", tool_call_id="c0", name="sums_add"),
    )
    assert chunks == [
        TextDelta("Let me see."),
        Info({"status": "function_call", "name": "sums.add", "arguments": '{"a": 1, "b": 2}'}),
        Info({"status": "function_result", "name": "sums.add", "result": "3"}),
        TextDelta("It is 3."),
        Finished("stop", Usage(30, 12, 4)),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not valid JSON"),
        ("{}", "a is missing Give it."),
        ('{"a": "boom"}', "RuntimeError: boom"),
    ],
)
async def test_what_goes_wrong_is_told_to_the_model(arguments: str, said: str) -> None:
    model = Model(calls(arguments), ANSWER)

    chunks = await answer(model, "sums.add")

    assert said in json.loads(model.asked[1].messages[-1].content)["error"]
    assert isinstance(chunks[-1], Finished)


async def test_a_long_result_is_cut_and_says_so() -> None:
    model = Model(calls('{"a": "long"}'), ANSWER)

    await answer(model, "sums.add")

    content = model.asked[1].messages[-1].content
    assert len(content) < MAX_RESULT + 100
    assert f"the result has {MAX_RESULT + 1} characters" in content


async def test_several_calls_of_a_round_are_answered_in_their_order() -> None:
    model = Model(calls('{"a": 1, "b": 2}', '{"a": 3, "b": 4}'), ANSWER)

    await answer(model, "sums.add")

    results = [m for m in model.asked[1].messages if m.role == "tool"]
    assert [(m.tool_call_id, m.content) for m in results] == [("c0", "3"), ("c1", "7")]


async def test_rounds_are_bounded_and_then_the_model_answers_without_functions() -> None:
    model = Model(calls('{"a": 1, "b": 2}'), calls('{"a": 1, "b": 2}'), ANSWER)

    chunks = await answer(model, "sums.add", rounds=2)

    assert len(model.asked) == 3
    assert model.asked[2].functions == ()
    assert notices(chunks) == ["function_rounds_used_up"]
    assert chunks[-1] == Finished("stop", Usage(40, 17, 4))


async def test_functions_that_the_client_described_are_called_by_the_client() -> None:
    made = ToolCall("c9", "weather", "{}")
    model = Model([made, Finished("tool_calls")])

    chunks = await answer(model, WEATHER, "sums.add")

    assert chunks == [made, Finished("tool_calls")]
    assert [item["function"]["name"] for item in model.asked[0].functions] == ["weather", "sums_add"]


async def test_where_both_are_called_the_client_has_the_word() -> None:
    made = ToolCall("c9", "weather", "{}")
    model = Model([made, ToolCall("c1", "sums_add", "{}"), Finished("tool_calls")])

    chunks = await answer(model, WEATHER, "sums.add")

    assert [chunk for chunk in chunks if isinstance(chunk, ToolCall)] == [made]
    assert notices(chunks) == ["functions_deferred"]
    assert len(model.asked) == 1


async def test_described_functions_alone_pass_untouched() -> None:
    model = Model([Finished()])

    assert await answer(model, WEATHER, info=UNABLE) == [Finished()]
    assert model.asked[0].functions == (WEATHER,)


async def test_a_model_without_tools_is_told_of_none_and_the_client_hears_of_it() -> None:
    model = Model(ANSWER)

    chunks = await answer(model, "sums.add", WEATHER, info=UNABLE)

    assert model.asked[0].functions == (WEATHER,)
    assert notices(chunks) == ["functions_not_supported"]
    assert "cannot call functions" in str(chunks[0])


async def test_unknown_names_are_noticed_and_the_others_work() -> None:
    model = Model(ANSWER)

    chunks = await answer(model, "no.such", "sums.add")

    assert notices(chunks) == ["functions_unknown"]
    assert len(model.asked[0].functions) == 1


async def test_names_that_become_the_same_are_told_apart() -> None:
    own = {"name": "sums_add"}
    model = Model([ToolCall("c", "sums_add_3", '{"a": 1, "b": 2}'), Finished("tool_calls")], ANSWER)

    chunks = await answer(model, own, "sums.add", "sums_add")

    told = [item.get("function", item)["name"] for item in model.asked[0].functions]
    assert told == ["sums_add", "sums_add_2", "sums_add_3"]
    assert [c.content["name"] for c in chunks if isinstance(c, Info) and isinstance(c.content, dict)] == [
        "sums_add",
        "sums_add",
    ]


async def test_a_round_that_fails_ends_it() -> None:
    model = Model([TextDelta("x"), Failed("generation_failed", "no")])

    assert await answer(model, "sums.add") == [TextDelta("x"), Failed("generation_failed", "no")]


async def test_what_is_wrong_before_the_first_chunk_is_raised_before_any_notice() -> None:
    async def refuse(request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        raise InvalidRequest("The prompt is too long.")
        yield Finished()

    request = GenerateRequest(id="1", functions=("no.such", "sums.add"))
    for info in (ABLE, UNABLE):
        with pytest.raises(InvalidRequest):
            await anext(generate_with_tools(request, info, FUNCTIONS, 3, refuse))
