"""Functions: described to the model, called by it in its own syntax, found in its answer, answered in the next turn."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_binding_llamacpp.native import Model, start_backend
from lollms_binding_llamacpp.parameters import Sampling
from lollms_binding_llamacpp.sampling import Sampler
from lollms_binding_llamacpp.tool_calls import ToolCallParser
from lollms_binding_llamacpp.tool_formats import (
    GENERIC,
    HERMES,
    LLAMA3,
    MISTRAL,
    choose,
    described,
    format_of,
)
from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import Chunk, Finished, Message, TemplateOptions, TextDelta, ToolCall

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["a", "b"]}},
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}},
}
HERMES_TEMPLATE = (
    "{% if tools %}<tool_call>{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}CALL {{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MakeBinding = Callable[..., Awaitable[LlamaCppBinding]]
Ask = Callable[..., Awaitable[list[Chunk]]]
HELLO = (Message("user", "hello"),)
NAMES = ("get_weather", "get_time")


def parsed(text: str, sizes: list[int] | None = None) -> tuple[str, list[tuple[str, Any]]]:
    parser = ToolCallParser(NAMES)
    out: list[str | ToolCall] = []
    at = 0
    for size in [*(sizes or []), len(text)]:
        out += parser.feed(text[at : at + size])
        at += size
    out += parser.finish()
    shown = "".join(part for part in out if isinstance(part, str))
    calls = [part for part in out if isinstance(part, ToolCall)]
    assert [call.index for call in calls] == list(range(len(calls)))
    assert len({call.id for call in calls}) == len(calls)
    return shown, [(call.name, json.loads(call.arguments)) for call in calls]


ONE = ("get_weather", {"city": "Paris"})
TWO: tuple[str, dict[str, Any]] = ("get_time", {})
CASES = [
    ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', "", [ONE]),
    ('See.\n<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>', "See.", [ONE]),
    (
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>\n'
        '<tool_call>{"name": "get_time", "arguments": {}}</tool_call>',
        "",
        [ONE, TWO],
    ),
    ('<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}', "", [ONE]),
    ('<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call> bye', "bye", [ONE]),
    ('[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "get_time"}]', "", [ONE, TWO]),
    ('[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}', "", [ONE]),
    ('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}', "", [ONE]),
    ('{"name": "get_weather", "parameters": {"city": "Paris"}}', "", [ONE]),
    ('\n{"type": "function", "function": {"name": "get_time", "arguments": {}}}', "", [TWO]),
    ('<function=get_weather>{"city": "Paris"}</function>', "", [ONE]),
    ("<think>I could <tool_call> now</think>{\"name\": \"get_time\"}", "<think>I could <tool_call> now</think>", [TWO]),
    # what is none stays text
    ('{"name": "unheard_of", "parameters": {}}', '{"name": "unheard_of", "parameters": {}}', []),
    ('{"a": 1} and more', '{"a": 1} and more', []),
    ("<tool_call>nonsense</tool_call>", "<tool_call>nonsense</tool_call>", []),
    ('<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": 5}</tool_call>', []),
    ("a < b and <tool", "a < b and <tool", []),
    ("[TOOL_CALLS", "[TOOL_CALLS", []),
    ("{ unfinished", "{ unfinished", []),
    ("", "", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "shown", "calls"), CASES, ids=lambda value: str(value)[:30])
def test_calls_of_every_family_are_found(text: str, shown: str, calls: Any) -> None:
    assert parsed(text) == (shown, calls)
    assert parsed(text, [1] * len(text)) == (shown, calls)


PIECES = [
    *(text for text, _, _ in CASES),
    "<tool_call>",
    "</tool_call>",
    "{",
    "}",
    '"',
    "[",
    "text ",
    "<think>",
    "</think>",
]


@given(
    some.lists(some.sampled_from(PIECES), max_size=5).map("".join),
    some.lists(some.integers(1, 9), max_size=40),
)
def test_how_the_text_is_split_does_not_matter(text: str, sizes: list[int]) -> None:
    assert parsed(text, sizes) == parsed(text)


@pytest.mark.parametrize("format", [HERMES, MISTRAL, LLAMA3, GENERIC], ids=lambda format: format.name)
def test_what_a_format_writes_is_what_the_parser_reads(format: Any) -> None:
    text = format.written({"name": "get_weather", "arguments": {"city": "Paris"}})
    assert parsed(text) == ("", [ONE])
    assert "get_weather" in format.instructions([WEATHER])


def test_formats_are_told_by_the_template() -> None:
    assert format_of("{{ tools }} <tool_call>") is HERMES
    assert format_of("{{ tools }} [TOOL_CALLS]") is MISTRAL
    assert format_of("{{ tools }} <|start_header_id|>") is LLAMA3
    assert format_of("<|im_start|>") is GENERIC


def test_choices() -> None:
    tools, others = described([WEATHER, CLOCK["function"], "a_name", {}])
    assert [tool["function"]["name"] for tool in tools] == ["get_weather", "get_time"]
    assert others == ["a_name", {}]
    assert choose(tools, None).must is False
    assert choose(tools, "none").tools == []
    assert choose(tools, "required").must is True
    named = choose(tools, {"type": "function", "function": {"name": "get_time"}})
    assert [tool["function"]["name"] for tool in named.tools] == ["get_time"]
    for wrong in ({"type": "function", "function": {"name": "no"}}, 5, "sometimes"):
        with pytest.raises(InvalidRequest):
            choose(tools, wrong)
    with pytest.raises(InvalidRequest):
        choose([], "required")
    with pytest.raises(InvalidRequest):
        described([{"type": "function", "function": {"name": "x", "parameters": []}}])
    with pytest.raises(InvalidRequest):
        described([WEATHER] * 200)


@pytest.mark.parametrize("template", [HERMES_TEMPLATE, None], ids=["template with tools", "without"])
async def test_a_function_that_must_be_called_is_called_with_valid_arguments(
    make_model: Any, make_binding: MakeBinding, ask: Ask, template: str | None
) -> None:
    make_model(n_ctx=2048, **({"template": template} if template else {}))
    binding = await make_binding(n_ctx=2048)
    chunks = await ask(
        binding,
        messages=HELLO,
        functions=(WEATHER, CLOCK),
        parameters={"tool_choice": "required", "max_tokens": 200, "seed": 3, "parallel_tool_calls": False},
    )
    calls = [chunk for chunk in chunks if isinstance(chunk, ToolCall)]
    assert len(calls) == 1
    assert calls[0].name in NAMES
    arguments = json.loads(calls[0].arguments)
    assert arguments == {} if calls[0].name == "get_time" else arguments["city"] in ("a", "b")
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].reason == "tool_calls"
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta)).strip() == ""

    named = {"tool_choice": {"type": "function", "function": {"name": "get_time"}}, "max_tokens": 200}
    chunks = await ask(binding, messages=HELLO, functions=(WEATHER, CLOCK), parameters=named)
    assert {chunk.name for chunk in chunks if isinstance(chunk, ToolCall)} == {"get_time"}


async def test_without_need_the_model_answers_freely(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model(n_ctx=2048, template=HERMES_TEMPLATE)
    binding = await make_binding(n_ctx=2048)
    free = await ask(binding, messages=HELLO, functions=(WEATHER,), parameters={"temperature": 0})
    assert "".join(c.text for c in free if isinstance(c, TextDelta)) == "abcdefghijklmnopqrstuvwxyz"
    assert free[-1].reason == "stop"  # type: ignore[union-attr]
    none = await ask(binding, messages=HELLO, functions=(WEATHER,), parameters={"tool_choice": "none"})
    assert none[-1].usage.prompt_tokens < free[-1].usage.prompt_tokens  # type: ignore[union-attr]


@pytest.mark.parametrize("format", [HERMES, MISTRAL, LLAMA3], ids=lambda format: format.name)
def test_a_call_that_the_model_begins_is_bound_to_the_functions_there_are(
    make_model: Any, format: Any
) -> None:
    start_backend(verbose=False)
    model = Model(make_model(), vocabulary_only=True)
    vocabulary = model.vocabulary
    sampling = Sampling(temperature=1.0, grammar_lazy=True, grammar_triggers=format.triggers)
    sampler = Sampler(sampling, vocabulary, 4, 512, format.grammar([WEATHER, CLOCK], False))
    forced = vocabulary.tokenize("Well. " * bool(format.begin) + (format.begin or '{"name":'), special=False)
    made = []
    for step in range(400):
        logits = np.random.default_rng(step).normal(0, 2, vocabulary.size).astype(np.float32)
        if step < len(forced):
            logits[forced[step]] = 99
        token = sampler.sample(logits)
        if token is None or token in vocabulary.end_tokens:
            break
        made.append(token)
    text = b"".join(map(vocabulary.piece, made)).decode()
    shown, calls = parsed(text)
    assert len(calls) == 1, text
    assert calls[0][0] in NAMES
    assert shown == ("Well." if format.begin else "")
    sampler.close()
    model.close()


async def test_turns_with_calls_and_results_go_through_the_template(
    make_model: Any, make_binding: MakeBinding
) -> None:
    make_model("knows.gguf", template=HERMES_TEMPLATE)
    make_model("not.gguf")
    binding = await make_binding()
    talk = [
        Message("user", "Weather?"),
        Message("assistant", "", tool_calls=(ToolCall("call_1", "get_weather", '{"city": "a"}'),)),
        Message("tool", "Sunny.", tool_call_id="call_1", name="get_weather"),
    ]
    text = await binding.apply_template(talk, "knows", TemplateOptions(tools=(WEATHER,)))
    assert '"name": "get_weather"' in text.split("<|im_start|>")[0]
    assert 'CALL get_weather {"city": "a"}' in text
    assert "<|im_start|>tool\nSunny.<|im_end|>" in text
    assert text.endswith("<|im_start|>assistant\n")
    plain = await binding.apply_template(
        talk, "not", TemplateOptions(tools=(WEATHER,), add_generation_prompt=False)
    )
    assert "You can call these functions" in plain
    assert '{"name": "get_weather", "arguments": {"city": "a"}}' in plain
    assert "<tool_response>\nSunny.\n</tool_response>" in plain
    assert not plain.endswith("assistant\n")
    with pytest.raises(InvalidRequest):
        await binding.apply_template(talk, "not", TemplateOptions(kwargs={"x": 1, 2: 3}))  # type: ignore[dict-item]


async def test_a_thought_that_the_prompt_has_opened_is_a_thought(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model(template="{{ messages[0].content }}<think>{{ '\\n' }}")
    binding = await make_binding()
    told = await ask(binding, messages=HELLO, parameters={"max_tokens": 3, "temperature": 0})
    assert "".join(c.text for c in told if isinstance(c, TextDelta)) == "<think>\nabc"
    raw = await ask(
        binding, messages=HELLO, raw_thoughts=True, parameters={"max_tokens": 3, "temperature": 0}
    )
    assert "".join(c.text for c in raw if isinstance(c, TextDelta)) == "abc"


def requiring(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"ok": schema}, "required": ["ok"]}


@pytest.mark.parametrize(
    "format",
    [
        {"type": "json_object"},
        {"type": "json_object", "schema": requiring({"type": "boolean"})},
        {"type": "json_schema", "json_schema": {"schema": requiring({"enum": [1, 2]})}},
    ],
    ids=["any object", "object", "schema"],
)
async def test_a_response_format_binds_the_answer(
    make_model: Any, make_binding: MakeBinding, ask: Ask, format: Any
) -> None:
    make_model()
    binding = await make_binding()
    bias = {" ": -100, "\n": -100, '"': -2}
    parameters = {
        "response_format": format,
        "max_tokens": 150,
        "logit_bias": bias,
        "seed": 5,
        "temperature": 0.1,
    }
    text = "".join(
        c.text for c in await ask(binding, messages=HELLO, parameters=parameters) if isinstance(c, TextDelta)
    )
    assert text.startswith("{")
    if "ok" in json.dumps(format):
        assert json.loads(text)["ok"] in (True, False, 1, 2)
