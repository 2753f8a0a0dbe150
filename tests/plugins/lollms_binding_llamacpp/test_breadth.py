"""Gaps to fill, LoRA adapters, saved slots, prompts of tokens, details of tokens, properties."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_binding_llamacpp.slot_files import check_filename
from lollms_kernel.errors import InvalidRequest, ModelLoadFailed, NotSupported
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Infill, Message, TextDelta

MakeBinding = Callable[..., Awaitable[LlamaCppBinding]]
Ask = Callable[..., Awaitable[list[Chunk]]]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))


def end_of(chunks: list[Chunk]) -> Finished:
    assert isinstance(chunks[-1], Finished)
    return chunks[-1]


FIM = {f"tokenizer.ggml.fim_{part}_token_id": 259 + at for at, part in enumerate(("pre", "suf", "mid"))}


async def test_a_gap_is_filled(make_model: Any, make_binding: MakeBinding, ask: Ask) -> None:
    make_model(metadata=FIM, n_ctx=512)
    binding = await make_binding(batch_size=64)
    assert "infill" in (await binding.get_model_info("alphabet")).capabilities
    gap = Infill(prefix="p" * 100, suffix="s" * 100, prompt="q", extra=(("file", "e" * 20),))
    chunks = await ask(binding, infill=gap, want_tokens=True, parameters={"max_tokens": 1})
    prompt = end_of(chunks).metadata["engine"]["prompt"]
    snippet = "\n\n--- snippet ---\n\n" + "e" * 20
    assert prompt == snippet + "system" + "p" * 48 + "q" + "user" + "s" * 13 + "assistant"


async def test_a_model_without_marks_for_gaps_says_which_is_missing(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model(metadata={key: value for key, value in FIM.items() if "mid" not in key})
    binding = await make_binding()
    assert "infill" not in (await binding.get_model_info("alphabet")).capabilities
    with pytest.raises(NotSupported, match="middle token is missing"):
        await ask(binding, infill=Infill(prefix="a", suffix="b"))


async def test_a_prompt_of_tokens_and_texts_is_taken_as_it_is(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model(add_bos=True)
    binding = await make_binding()
    for parts, count in (((ord("w"),), 1), (("w",), 2), ((ord("a"), "vw"), 3), (("v", ord("w")), 3)):
        chunks = await ask(binding, prompt_parts=parts)
        assert text_of(chunks) == "xyz"
        assert end_of(chunks).usage.prompt_tokens == count  # type: ignore[union-attr]
    empty = await ask(binding, prompt_parts=("",), parameters={"max_tokens": 1})
    assert end_of(empty).usage.prompt_tokens == 1  # type: ignore[union-attr]
    for wrong in ((), (-1,), (99_999,), (2**40,)):
        with pytest.raises(InvalidRequest):
            await ask(binding, prompt_parts=wrong)


async def test_tokens_and_their_probabilities_come_with_the_text_they_make(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()
    chunks = await ask(binding, raw_prompt="!", want_tokens=True, parameters={"n_probs": 3, "temperature": 0})
    deltas = [chunk for chunk in chunks if isinstance(chunk, TextDelta)]
    euro = list("€".encode())
    assert [token for delta in deltas for token in delta.tokens] == [*euro, 258]
    assert text_of(chunks) == "€"
    first = next(delta for delta in deltas if delta.text)
    assert first.tokens[:3] == tuple(euro)  # a character of three tokens
    probabilities = [entry for delta in deltas for entry in delta.probabilities]
    assert [entry.id for entry in probabilities] == [*euro, 258]
    assert probabilities[0].piece == b"\xe2"
    assert all(len(entry.top) == 3 and entry.top[0].id == entry.id for entry in probabilities)
    assert all(entry.logprob == entry.top[0].logprob > math.log(0.5) for entry in probabilities)

    held = await ask(binding, raw_prompt="v", want_tokens=True, parameters={"stop": ["yq", "z"]})
    deltas = [chunk for chunk in held if isinstance(chunk, TextDelta)]
    assert text_of(held) == "wxy"
    assert [token for delta in deltas for token in delta.tokens] == list(b"wxyz")
    facts = end_of(held).metadata["engine"]
    assert (facts["stop_type"], facts["stopping_word"]) == ("word", "z")

    plain = await ask(binding, raw_prompt="v")
    assert all(not chunk.tokens for chunk in plain if isinstance(chunk, TextDelta))
    assert "engine" not in end_of(plain).metadata


async def test_the_engine_tells_how_an_answer_went(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()
    chunks = await ask(binding, raw_prompt="\nab<|im_end|>v", want_tokens=True)
    facts = end_of(chunks).metadata["engine"]
    assert facts["prompt"] == "\nab<|im_end|>v"
    assert facts["stop_type"] == "eos"
    assert facts["stopping_word"] == ""
    assert facts["truncated"] is False
    assert facts["has_new_line"] is False
    assert facts["tokens_cached"] == 5 + 5 - 1  # all but the last token
    timings = facts["timings"]
    assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (0, 5, 5)
    assert timings["prompt_ms"] > 0
    assert timings["predicted_per_token_ms"] == pytest.approx(timings["predicted_ms"] / 4)
    again = await ask(binding, raw_prompt="\nab<|im_end|>v", want_tokens=True, parameters={"max_tokens": 1})
    facts = end_of(again).metadata["engine"]
    assert facts["stop_type"] == "limit"
    assert (facts["timings"]["cache_n"], facts["timings"]["prompt_n"]) == (4, 1)
    assert facts["timings"]["predicted_per_second"] == 0.0
    bound = await ask(
        binding, raw_prompt="v", want_tokens=True, parameters={"grammar": 'root ::= "w"', "ignore_eos": True}
    )
    assert end_of(bound).metadata["engine"]["stop_type"] == "none"


async def test_control_tokens_show_where_they_are_preserved(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()
    parameters = {"ignore_eos": True, "logit_bias": {"<|im_start|>": 100}, "max_tokens": 2}
    assert text_of(await ask(binding, raw_prompt="v", parameters=parameters)) == ""
    shown = {**parameters, "preserved_tokens": ["<|im_start|>"]}
    assert text_of(await ask(binding, raw_prompt="v", parameters=shown)) == "<|im_start|>" * 2


async def test_indentation_and_time_limit_an_answer(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()
    bias = {"logit_bias": {"\n": 50}, "max_tokens": 40, "temperature": 0}
    chunks = await ask(binding, raw_prompt="v", want_tokens=True, parameters={**bias, "t_max_predict_ms": 1})
    assert end_of(chunks).metadata["engine"]["stop_type"] == "limit"
    assert end_of(chunks).metadata["engine"]["has_new_line"] is True
    assert end_of(chunks).usage.completion_tokens <= 40  # type: ignore[union-attr]
    grammar = {
        "grammar": 'root ::= "x\\n    y\\n  z" [a-z]*',
        "n_indent": 4,
        "temperature": 0,
        "max_tokens": 40,
    }
    text = text_of(await ask(binding, raw_prompt="v", parameters=grammar))
    assert text == "x\n    y\n  z"


async def test_adapters_have_scales_for_each_request(
    make_model: Any, make_adapter: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    make_adapter("to_x.gguf", "a", "x")
    make_adapter("to_q.gguf", "a", "q")
    lora = [{"path": "adapters/to_x.gguf", "scale": 1.0}, {"path": "adapters/to_q.gguf", "scale": 0.0}]
    from lollms_binding_llamacpp.settings import LoraFile

    binding = await make_binding(lora=[LoraFile(**entry) for entry in lora])  # type: ignore[arg-type]

    async def answer(**parameters: Any) -> str:
        return text_of(await ask(binding, raw_prompt="a", parameters={"temperature": 0, **parameters}))

    assert await answer() == "xyz"
    off: list[dict[str, Any]] = []
    other = [{"id": 1, "scale": 1.0}]
    assert (await answer(lora=off, max_tokens=3)) == "bcd"
    assert (await answer(lora=other, max_tokens=3)) == "qrs"
    both = await asyncio.gather(*(answer(lora=scales, max_tokens=3) for scales in (off, other) * 4))
    assert both == ["bcd", "qrs"] * 4
    # what one set of scales computed is never used for another
    chunks = await ask(binding, raw_prompt="b" * 40 + "a", parameters={"lora": off, "max_tokens": 1})
    chunks = await ask(binding, raw_prompt="b" * 40 + "a", parameters={"lora": other, "max_tokens": 1})
    assert end_of(chunks).usage.cached_tokens == 0  # type: ignore[union-attr]

    listed = await binding.adapters(None)
    assert [(entry["id"], entry["path"], entry["scale"]) for entry in listed] == [
        (0, "to_x.gguf", 1.0),
        (1, "to_q.gguf", 0.0),
    ]
    await binding.set_adapters([(1, 0.5)], None)
    assert [entry["scale"] for entry in await binding.adapters(None)] == [0.0, 0.5]
    assert (await answer(max_tokens=1)) == "q"
    with pytest.raises(InvalidRequest):
        await binding.set_adapters([(7, 1.0)], None)
    for wrong in (
        [{"id": 9, "scale": 1}],
        [{"id": -1, "scale": 1}],
        [{"id": "x", "scale": 1}],
        5,
        [{"id": 0, "scale": 1e30}],
    ):
        with pytest.raises(InvalidRequest):
            await answer(lora=wrong)


async def test_an_adapter_that_does_not_fit_is_named(
    make_model: Any, make_binding: MakeBinding, ask: Ask, tmp_path: Path
) -> None:
    from lollms_binding_llamacpp.settings import LoraFile

    make_model()
    binding = await make_binding(lora=[LoraFile("missing.gguf")])
    with pytest.raises(ModelLoadFailed, match=r"missing\.gguf"):
        await ask(binding, raw_prompt="a")


async def test_a_slot_is_saved_and_comes_back_for_its_tenant(
    make_model: Any, make_binding: MakeBinding, ask: Ask, tmp_path: Path
) -> None:
    make_model()
    binding = await make_binding(slot_save_path="saved", parallel=2)
    prompt = "b" * 40

    async def cached(tenant: str = "") -> int:
        chunks = await ask(
            binding,
            raw_prompt=prompt,
            tenant=tenant,
            parameters={"max_tokens": 4, "id_slot": 1, "temperature": 0},
        )
        usage = end_of(chunks).usage
        assert usage is not None
        return usage.cached_tokens

    assert await cached() == 0
    saved = await binding.slot_action(1, "save", "one.bin", None, "")
    assert saved["id_slot"] == 1
    assert saved["filename"] == "one.bin"
    assert saved["n_saved"] == 40 + 4 - 1  # the last token was never evaluated
    assert saved["n_written"] > 1000
    assert saved["timings"]["save_ms"] > 0
    assert (await binding.slot_action(1, "erase", None, None, ""))["n_erased"] == 43
    assert await cached() == 0
    await binding.unload()
    restored = await binding.slot_action(1, "restore", "one.bin", None, "")
    assert restored["n_restored"] == 43
    assert restored["n_read"] == saved["n_written"]
    assert await cached() == 39
    # nobody else has it, or learns of it
    with pytest.raises(InvalidRequest, match="Unable to restore slot"):
        await binding.slot_action(1, "restore", "one.bin", None, "somebody")
    assert await cached("somebody") == 0
    assert (await binding.slot_action(1, "save", "two.bin", None, ""))["n_saved"] == 0
    assert (await binding.slot_action(1, "erase", None, None, ""))["n_erased"] == 0
    assert (await binding.slot_action(1, "save", "one.bin", None, "somebody"))["n_saved"] == 43

    path = next((tmp_path / "saved" / "everybody").glob("one.bin"))
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole[:-3], whole[:-1] + b"x", b"x" * 100):
        path.write_bytes(damaged)
        with pytest.raises(InvalidRequest, match="Unable to restore slot"):
            await binding.slot_action(0, "restore", "one.bin", None, "")
    for slot, action, name in (
        (2, "save", "x"),
        (-1, "save", "x"),
        (0, "burn", "x"),
        (0, "save", None),
        (0, "save", "../x"),
    ):
        with pytest.raises(InvalidRequest):
            await binding.slot_action(slot, action, name, None, "")
    with pytest.raises(NotSupported):
        await (await make_binding()).slot_action(0, "save", "x", None, "")


async def test_a_busy_slot_is_waited_for(make_model: Any, make_binding: MakeBinding) -> None:
    make_model(n_ctx=4096)
    binding = await make_binding(parallel=1, n_ctx=4096)
    request = GenerateRequest(id="r", model="alphabet.gguf", raw_prompt="?", parameters={"max_tokens": -1})
    chunks = binding.generate(request)
    await anext(chunks)
    erasing = asyncio.create_task(binding.slot_action(0, "erase", None, None, ""))
    await binding.slots(None)
    assert not erasing.done()
    await chunks.aclose()
    assert (await erasing)["n_erased"] > 0


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "a\\b",
        "..",
        "a..b",
        ".",
        " x",
        "x ",
        "x.",
        "a\nb",
        "a:b",
        "x" * 256,
        "é" * 128,
        "a\x7f",
        "\ud800",
        None,
    ],
)
def test_names_that_are_no_plain_file_names(name: str | None) -> None:
    with pytest.raises(InvalidRequest, match="Invalid filename"):
        check_filename(name)


def test_plain_file_names() -> None:
    for name in ("a", "slot-1.bin", ".hidden", "é" * 127, "with space"):
        check_filename(name)


async def test_properties_say_what_is_loaded(make_model: Any, make_binding: MakeBinding, ask: Ask) -> None:
    make_model()
    binding = await make_binding(parallel=3, default_parameters={"temperature": 0.25, "n_predict": 9})
    facts = await binding.properties(None)
    assert facts["total_slots"] == 3
    assert facts["default_generation_settings"]["n_ctx"] == 512
    assert facts["default_generation_settings"]["params"]["temperature"] == 0.25
    assert facts["default_generation_settings"]["params"]["n_predict"] == 9
    assert facts["model_path"] == "alphabet.gguf"
    assert facts["modalities"] == {"vision": False, "audio": False, "video": False}
    assert facts["bos_token"] == "<|endoftext|>"
    assert facts["eos_token"] == "<|im_end|>"
    assert facts["meta"]["n_vocab"] == 264
    assert facts["meta"]["n_ctx_train"] == 512
    assert "{{ m.role }}" in facts["chat_template"]
    assert {"chat", "tools", "tokens", "grammar", "json_schema", "logprobs"} <= set(facts["capabilities"])
    idle = await binding.slots(None)
    assert [slot["is_processing"] for slot in idle] == [False] * 3
    chunks = binding.generate(
        GenerateRequest(id="r", model="alphabet.gguf", raw_prompt="?", parameters={"max_tokens": 200})
    )
    await anext(chunks)
    busy = [slot for slot in await binding.slots(None) if slot["is_processing"]]
    assert len(busy) == 1
    assert busy[0]["n_prompt_tokens"] == 1
    assert busy[0]["next_token"][0]["n_remain"] < 200
    assert (await binding.engine_metrics(None))["requests_processing"] == 1
    await chunks.aclose()


async def test_an_answer_may_continue_the_last_turn(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model()
    binding = await make_binding()
    begun = (Message("user", "hello"), Message("assistant", "uvw"))
    assert text_of(await ask(binding, messages=begun, parameters={"temperature": 0})) == "xyz"
    whole = {"temperature": 0, "continue_final_message": False}
    assert text_of(await ask(binding, messages=begun, parameters=whole)) == "abcdefghijklmnopqrstuvwxyz"


async def test_models_that_are_asked_for_in_turn_are_swapped_fairly(
    make_model: Any, make_binding: MakeBinding, ask: Ask
) -> None:
    make_model("one.gguf")
    make_model("two.gguf")
    binding = await make_binding()
    order: list[str] = []

    async def one(model: str) -> None:
        await ask(binding, model, raw_prompt="?", parameters={"max_tokens": 20, "ignore_eos": True})
        order.append(model)

    names = ["one.gguf"] * 4 + ["two.gguf"] + ["one.gguf"] * 4
    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(one(name)))
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    assert order.index("two.gguf") <= 5  # those that came later did not overtake it
