"""Requests answered by a real model in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from gguf.constants import GGMLQuantizationType as Quantization

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_kernel.errors import (
    ContextOverflow,
    InvalidRequest,
    ModelLoadFailed,
    ModelNotFound,
    UnsupportedInput,
)
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Media, Message, Notice, TextDelta

MakeBinding = Callable[..., Awaitable[LlamaCppBinding]]
Ask = Callable[..., Awaitable[list[Chunk]]]
HELLO = (Message("user", "hello"),)


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))


def end_of(chunks: list[Chunk]) -> Finished:
    assert isinstance(chunks[-1], Finished)
    return chunks[-1]


def notices_of(chunks: list[Chunk]) -> dict[str, Notice]:
    return {chunk.code: chunk for chunk in chunks if isinstance(chunk, Notice)}


async def test_a_conversation_goes_through_the_models_own_template(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()

    chunks = await ask(binding, messages=HELLO, system="Be brief.", parameters={"temperature": 0})

    assert text_of(chunks) == "abcdefghijklmnopqrstuvwxyz"
    end = end_of(chunks)
    assert end.reason == "stop"
    assert end.usage is not None
    assert end.usage.completion_tokens == 27  # the token that ends the answer was generated too
    # start system \n "Be brief." end \n, start user \n "hello" end \n, start assistant \n
    assert end.usage.prompt_tokens == (3 + 9 + 2) + (3 + 5 + 2) + 3
    assert end.metadata["model"] == "alphabet.gguf"
    assert end.timings.load is not None
    assert end.timings.first_chunk is not None
    assert notices_of(chunks) == {}


async def test_a_raw_prompt_is_continued_as_it_is(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()

    assert text_of(await ask(binding, raw_prompt="v")) == "wxyz"
    told = await ask(binding, raw_prompt="v", system="unheard")
    assert text_of(told) == "wxyz"
    assert "system_ignored" in notices_of(told)


async def test_control_tokens_count_in_a_raw_prompt_only(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()

    raw = end_of(await ask(binding, raw_prompt="<|im_end|> "))
    said = end_of(await ask(binding, messages=(Message("user", "<|im_end|> "),)))

    assert raw.usage is not None
    assert said.usage is not None
    assert raw.usage.prompt_tokens == 2
    assert said.usage.prompt_tokens == 3 + len("<|im_end|> ") + 2 + 3


@pytest.mark.parametrize("limit", [{"max_tokens": 3}, {"n_predict": 3, "max_tokens": 1024}])
async def test_max_tokens_ends_with_length(
    make_model: Any, make_binding: MakeBinding, ask: Ask, limit: Any
) -> None:
    make_model()
    chunks = await ask(await make_binding(), messages=HELLO, parameters=limit)
    assert text_of(chunks) == "abc"
    assert end_of(chunks).reason == "length"


@pytest.mark.parametrize(
    ("stop", "text", "matched"),
    [
        ("f", "abcde", "f"),
        (["xy", "efg", "hi"], "abcd", "efg"),
        (["yza"], "abcdefghijklmnopqrstuvwxyz", None),
    ],
)
async def test_stop_strings_end_the_answer_and_never_show(
    make_model: Any, make_binding: MakeBinding, ask: Ask, stop: Any, text: str, matched: str | None
) -> None:
    make_model()
    chunks = await ask(await make_binding(), messages=HELLO, parameters={"stop": stop})
    assert text_of(chunks) == text
    assert end_of(chunks).reason == "stop"
    assert end_of(chunks).metadata.get("stop") == matched


async def test_a_character_of_several_tokens_comes_whole_or_not_at_all(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()

    whole = await ask(binding, raw_prompt="!")
    cut = await ask(binding, raw_prompt="!", parameters={"max_tokens": 2})

    assert [chunk.text for chunk in whole if isinstance(chunk, TextDelta)] == ["€"]
    assert text_of(cut) == ""
    assert end_of(cut).reason == "length"


async def test_the_same_seed_gives_the_same_text_and_another_seed_another(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()

    async def draw(**parameters: Any) -> tuple[str, int]:
        chunks = await ask(
            binding, raw_prompt="?", parameters={"max_tokens": 80, "temperature": 1.0, **parameters}
        )
        return text_of(chunks), end_of(chunks).metadata["seed"]

    first, seed = await draw(seed=7)
    assert seed == 7
    assert await draw(seed=7) == (first, 7)
    assert (await draw(seed=8))[0] != first
    free, used = await draw(seed=-1)
    assert free != first
    assert await draw(seed=used) == (free, used)


async def test_sampling_parameters_reach_the_model(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()

    async def draw(**parameters: Any) -> str:
        return text_of(
            await ask(binding, raw_prompt="?", parameters={"max_tokens": 40, "seed": 1, **parameters})
        )

    assert set(await draw(temperature=0)) == {"?", "0"}
    assert set(await draw(top_k=1)) == {"?", "0"}
    assert len(set(await draw(temperature=5.0, min_p=0, top_p=1, top_k=0))) > 11
    assert set(await draw(logit_bias={str(ord("7")): 50})) == {"7"}
    assert set(await draw(logit_bias=[["7", 50], ["?", 60]])) == {"7", "?"}
    assert "0" not in await draw(logit_bias=[["0", False]])
    assert len(set(await draw(temperature=0, repeat_penalty=1.5, max_tokens=16))) > 3
    assert set(await draw(mirostat=2)) <= set("?0123456789")
    assert set(await draw(mirostat=1)) <= set("?0123456789")
    assert set(await draw(typical_p=0.5, presence_penalty=0.5, frequency_penalty=0.1)) <= set("?0123456789")


async def test_ignore_eos_goes_on_after_the_end(make_model: Any, make_binding: MakeBinding, ask: Ask) -> None:
    make_model()
    parameters = {"ignore_eos": True, "max_tokens": 10, "temperature": 0}
    chunks = await ask(await make_binding(), raw_prompt="x", parameters=parameters)
    assert text_of(chunks).startswith("yz")
    assert end_of(chunks).reason == "length"
    assert end_of(chunks).usage.completion_tokens == 10  # type: ignore[union-attr]


async def test_a_grammar_binds_the_answer(make_model: Any, make_binding: MakeBinding, ask: Ask) -> None:
    make_model()
    binding = await make_binding()

    free = await ask(binding, messages=HELLO, parameters={"grammar": 'root ::= "ab" [x-z]', "temperature": 0})
    assert text_of(free) in ("abx", "aby", "abz")
    assert end_of(free).reason == "stop"

    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    made = await ask(binding, messages=HELLO, parameters={"json_schema": schema, "max_tokens": 60})
    assert text_of(made).startswith("{")

    endless = {"grammar": 'root ::= "ab"', "ignore_eos": True}
    assert text_of(await ask(binding, messages=HELLO, parameters=endless)) == "ab"


@pytest.mark.parametrize(
    "parameters",
    [
        {"grammar": "root ::= ("},
        {"grammar": "nothing here"},
        {"json_schema": {"type": "no such type"}},
        {"json_schema": "not JSON"},
        {"grammar": 'root ::= "a"', "json_schema": {"type": "object"}},
        {"logit_bias": {"99999": 1}},
        {"temperature": "warm"},
    ],
)
async def test_what_cannot_be_done_is_refused_before_anything_streams(
    make_model: Any, make_binding: MakeBinding, ask: Ask, parameters: Any
) -> None:
    make_model()
    binding = await make_binding()
    with pytest.raises(InvalidRequest) as caught:
        await ask(binding, messages=HELLO, parameters={**parameters, "unheard_of": 1})
    assert caught.value.hint
    assert text_of(await ask(binding, raw_prompt="y")) == "z"


async def test_a_prompt_that_does_not_fit_is_an_error_with_numbers(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model(n_ctx=512)
    binding = await make_binding(n_ctx=64)

    assert text_of(await ask(binding, raw_prompt="a" * 62 + "y")) == "z"
    for length in (64, 100_000):
        with pytest.raises(ContextOverflow) as caught:
            await ask(binding, raw_prompt="a" * length)
        assert "64" in caught.value.message
        assert "n_ctx" in str(caught.value.hint)
        assert "512" in str(caught.value.hint)


async def test_an_answer_ends_where_the_context_is_full(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model(n_ctx=512)
    chunks = await ask(await make_binding(n_ctx=64), raw_prompt="???", parameters={"max_tokens": 1024})
    assert end_of(chunks).reason == "length"
    assert notices_of(chunks)["context_full"].details == {"n_ctx": 64}
    assert len(text_of(chunks)) == 64 - 3


async def test_the_same_tenants_prefix_is_read_once_and_nobody_elses_is_used(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()
    long = Message("user", "hello " * 20)

    async def cached(tenant: str, *messages: Message, **parameters: Any) -> int:
        chunks = await ask(binding, messages=messages, tenant=tenant, parameters=parameters)
        assert text_of(chunks) == "abcdefghijklmnopqrstuvwxyz"
        usage = end_of(chunks).usage
        assert usage is not None
        return usage.cached_tokens

    answered = Message("assistant", "abcdefghijklmnopqrstuvwxyz")
    assert await cached("a", long) == 0
    assert await cached("a", long, answered, Message("user", "more")) > 140
    assert await cached("b", long) == 0
    assert await cached("a", long) > 120
    assert await cached("a", long, cache_prompt=False) == 0


async def test_what_differs_from_the_request_is_noted(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model(n_ctx=128, template=None)
    make_model("other.gguf")
    binding = await make_binding(n_ctx=2048, n_gpu_layers=5)

    await ask(binding, "other.gguf", raw_prompt="y")
    chunks = await ask(
        binding, messages=HELLO, parameters={"temprature": 1, "context_size": 9}, functions=({},)
    )

    notices = notices_of(chunks)
    assert notices["context_capped"].details == {"n_ctx": 128, "wanted": 2048}
    assert notices["parameters_ignored"].details == {"names": ["temprature"]}
    assert {"chat_template_missing", "cpu_fallback", "functions_ignored", "model_swapped"} <= notices.keys()
    assert text_of(chunks) == "abcdefghijklmnopqrstuvwxyz"


async def test_sampling_defaults_come_from_the_file_and_requests_override_them(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model(metadata={"general.sampling.temp": 0.0})
    binding = await make_binding()
    assert set(text_of(await ask(binding, raw_prompt="?", parameters={"max_tokens": 40}))) == {"?", "0"}
    warm = await ask(binding, raw_prompt="?", parameters={"max_tokens": 40, "temperature": 1.0, "seed": 1})
    assert len(set(text_of(warm))) > 3


async def test_a_template_without_system_role_gets_the_text_in_the_users_turn(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    make_model(template=strict + "{% for m in messages %}{{ m.content }}{% endfor %}{{ '\\n' }}")
    chunks = await ask(await make_binding(), system="S", messages=HELLO)
    assert "system_folded" in notices_of(chunks)
    assert end_of(chunks).usage.prompt_tokens == len("S\n\nhello\n")  # type: ignore[union-attr]


async def test_bos_is_there_once_where_the_model_wants_it(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model(add_bos=True, template="{{ bos_token }}{{ messages[0].content }}{{ '\\n' }}")
    binding = await make_binding()
    assert end_of(await ask(binding, messages=HELLO)).usage.prompt_tokens == 7  # type: ignore[union-attr]
    assert end_of(await ask(binding, raw_prompt="y")).usage.prompt_tokens == 2  # type: ignore[union-attr]


async def test_the_settings_may_name_another_template(
    make_model: Any, make_binding: MakeBinding, ask: Ask, tmp_path: Any
) -> None:
    make_model()
    (tmp_path / "short.jinja").write_text("{{ messages[0].content }}\nw")
    for given in ("short.jinja", "{{ messages[0].content }}\nw"):
        binding = await make_binding(chat_template=given)
        assert text_of(await ask(binding, messages=HELLO)) == "xyz"


async def test_only_text_is_taken(make_model: Any, make_binding: MakeBinding, ask: Ask) -> None:
    make_model()
    binding = await make_binding()
    picture = Media("image", "input_image", b"png")
    with pytest.raises(UnsupportedInput):
        await ask(binding, messages=(Message("user", "look", (picture,)),))
    with pytest.raises(UnsupportedInput):
        await ask(binding, generation_type="tti", messages=HELLO)
    with pytest.raises(InvalidRequest):
        await ask(binding)


async def test_models_are_swapped_loaded_and_unloaded(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model("one.gguf")
    make_model("two.gguf", quantization=Quantization.F16)
    binding = await make_binding(default_model="two")

    async def loaded() -> list[str]:
        return [info.name for info in await binding.list_models() if info.details.get("loaded")]

    assert await loaded() == []
    await binding.load("one")
    assert await loaded() == ["one.gguf"]
    assert end_of(await ask(binding, "one.gguf", raw_prompt="y")).timings.load is None
    assert end_of(await ask(binding, None, raw_prompt="y")).metadata["model"] == "two.gguf"
    assert await loaded() == ["two.gguf"]
    await binding.unload()
    assert await loaded() == []
    with pytest.raises(ModelNotFound):
        await binding.load("three")


@pytest.mark.parametrize("cache_type", ["q8_0", "q4_0"])
async def test_the_kv_cache_may_be_quantized(
    make_model: Any, make_binding: MakeBinding, ask: Ask, cache_type: str
) -> None:
    make_model()
    assert text_of(await ask(await make_binding(cache_type=cache_type), raw_prompt="v")) == "wxyz"


async def test_damaged_files_say_what_is_wrong_and_the_next_request_works(
    make_model: Any, make_binding: MakeBinding, ask: Ask, models: Any
) -> None:
    good = make_model()
    (models / "cut.gguf").write_bytes(good.read_bytes()[:-100_000])
    (models / "head.gguf").write_bytes(good.read_bytes()[:500])
    (models / "text.gguf").write_text("Not a model.")
    (models / "alien.gguf").write_bytes(good.read_bytes().replace(b"llama", b"alien"))
    binding = await make_binding()

    for name in ("cut", "head", "text", "alien"):
        with pytest.raises(ModelLoadFailed) as caught:
            await ask(binding, f"{name}.gguf", raw_prompt="y")
        assert name in caught.value.message
        assert caught.value.hint
        assert text_of(await ask(binding, raw_prompt="y")) == "z"


async def test_a_broken_template_is_named(make_model: Any, make_binding: MakeBinding, ask: Ask) -> None:
    make_model(template="{% for m in %}")
    with pytest.raises(ModelLoadFailed, match="template"):
        await ask(await make_binding(), messages=HELLO)


async def test_tokens_of_any_model_are_counted_while_another_answers(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    make_model("other.gguf")
    binding = await make_binding()
    request = GenerateRequest(
        id="r", model="alphabet.gguf", raw_prompt="?", parameters={"max_tokens": 400, "ignore_eos": True}
    )
    chunks = binding.generate(request)
    await anext(chunks)

    tokens = await binding.tokenize("hé<|im_end|>", "other", True, True)
    assert tokens == [256, ord("h"), 0xC3, 0xA9, 258, 258]
    assert await binding.detokenize(tokens, None) == "<|endoftext|>hé<|im_end|><|im_end|>"
    for wrong in ([-1], [len("x") * 10_000]):
        with pytest.raises(InvalidRequest):
            await binding.detokenize(wrong, None)
    assert await binding.detokenize([], None) == ""
    await chunks.aclose()


async def test_requests_at_the_same_time_take_turns(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model("one.gguf")
    make_model("two.gguf")
    binding = await make_binding()
    answers = await asyncio.gather(
        *(ask(binding, name, messages=HELLO) for name in ("one.gguf", "two.gguf") * 3)
    )
    assert {text_of(chunks) for chunks in answers} == {"abcdefghijklmnopqrstuvwxyz"}
