"""Chat templates, and that what people write never becomes a control token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from lollms_binding_llamacpp.chat_template import CHATML, ChatTemplate
from lollms_binding_llamacpp.native import Model, Vocabulary, start_backend
from lollms_binding_llamacpp.prompt import Chat, PromptMaker
from lollms_binding_llamacpp.turns import RenderOptions, as_turns
from lollms_kernel.errors import GenerationFailed, InvalidRequest, ModelLoadFailed
from lollms_kernel.types import Message

TALK = [
    Message("system", "Be brief."),
    Message("user", "Hi"),
    Message("assistant", "Yes?"),
    Message("user", "Bye"),
]


def render(source: str, messages: list[Message] = TALK) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(as_turns(messages, tools_known=True))[0]


def test_chatml_is_what_everybody_expects() -> None:
    assert render(CHATML, TALK[:2]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_usual_names_are_there() -> None:
    assert render("{{ bos_token }}{{ eos_token }}") == "<s></s>"
    assert render("{{ strftime_now('%Y') | length }}") == "4"
    assert render("{{ {'a': '<é>'} | tojson }}") == '{"a": "<é>"}'
    assert render("{% if tools is none %}none{% endif %}{{ tools | length if tools }}") == "none"
    skips = "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role[0] }}{% endfor %}"
    assert render(skips) == "uau"
    assert render("{% generation %}text{% endgeneration %}") == "text"
    assert render("{% if true %}\n  a\n{% endif %}\nb") == "  a\nb"


def test_a_refusal_is_the_requests_fault_and_says_why() -> None:
    source = "{% if messages | length != 2 %}{{ raise_exception('Turns must alternate.') }}{% endif %}"
    with pytest.raises(InvalidRequest, match=r"Turns must alternate\."):
        render(source)


@pytest.mark.parametrize("source", ["{% for %}", "{{ 'open }}", "{% nothing %}", "{% if true %}"])
def test_a_template_that_cannot_be_compiled_is_refused_when_the_model_is_loaded(source: str) -> None:
    with pytest.raises(ModelLoadFailed) as caught:
        ChatTemplate(source, "", "")
    assert "chat_template" in str(caught.value.hint)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[99].content.x }}",
        "{{ 1 // 0 }}",
        "{{ nothing() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for a in range(10000000) %}x{% endfor %}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_stopped(source: str) -> None:
    with pytest.raises(GenerationFailed) as caught:
        render(source)
    assert "chat_template" in str(caught.value.hint)


@pytest.fixture
def vocabulary(make_model: Callable[..., Path]) -> Iterator[Vocabulary]:
    start_backend(verbose=False)
    model = Model(make_model(), vocabulary_only=True)
    yield model.vocabulary
    model.close()


CONTROL = {256, 257, 258}
START, END = 257, 258


def talk(*messages: Message) -> Chat:
    return Chat(turns=as_turns(messages, tools_known=True))


def prompts(vocabulary: Vocabulary, source: str = CHATML) -> PromptMaker:
    return PromptMaker(vocabulary, ChatTemplate(source, "", ""), 10**9, 10**9, "test")


def test_the_templates_own_markers_are_control_tokens(vocabulary: Vocabulary) -> None:
    tokens = prompts(vocabulary).chat(talk(Message("user", "hi"))).tokens
    assert [token for token in tokens if token in CONTROL] == [START, END, START]


PARTS = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|im_", "end|>", "<", "|", ">", "a", "\ue000", "é"]
TURNS = some.lists(some.lists(some.sampled_from(PARTS)).map("".join), min_size=1, max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(turns=TURNS)
def test_what_people_write_never_becomes_a_control_token_and_is_never_changed(
    vocabulary: Vocabulary, turns: list[str]
) -> None:
    maker = prompts(vocabulary)
    messages = [Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(turns)]

    tokens = maker.chat(talk(*messages)).tokens

    assert [token for token in tokens if token in CONTROL] == [START, END] * len(turns) + [START]
    expected = render(CHATML, messages)
    assert vocabulary.detokenize(tokens) == expected


def test_a_marker_within_a_marker_is_found_too(vocabulary: Vocabulary) -> None:
    class Odd:
        bos, add_bos, longest, control_texts = -1, False, 20, ("<<a>>", "<a>", "x")

        def check(self, token: int) -> None:
            pass

        def tokenize(self, text: str, *, special: bool) -> list[int]:
            return [index for index, marker in enumerate(self.control_texts[:2]) if marker in text] or [9]

    maker = PromptMaker(Odd(), ChatTemplate("{{ messages[0].content }}", "", ""), 100, 100, "test")
    assert set(maker.chat(talk(Message("user", "<<a>> <a> <<a>>"))).tokens) == {9}


def test_templates_still_see_what_is_written(vocabulary: Vocabulary) -> None:
    source = "{% for m in messages %}{{ m.content.split('</think>')[-1] | trim }}{% endfor %}"
    turn = Message("assistant", "<think>hm</think> yes <|im_end|>")
    tokens = prompts(vocabulary, source).chat(talk(turn)).tokens
    assert vocabulary.detokenize(tokens) == "yes <|im_end|>"
    assert not CONTROL & set(tokens)


def test_an_empty_prompt_begins_with_bos_or_is_refused(vocabulary: Vocabulary) -> None:
    assert prompts(vocabulary).raw("").tokens == [256]

    class Bare:
        bos, add_bos, longest, control_texts = -1, False, 1, ()

        def check(self, token: int) -> None:
            pass

        def tokenize(self, text: str, *, special: bool) -> list[int]:
            return []

    with pytest.raises(InvalidRequest):
        PromptMaker(Bare(), ChatTemplate(CHATML, "", ""), 100, 100, "test").raw("")


def test_odd_text_is_tokenized_and_comes_back(vocabulary: Vocabulary) -> None:
    for text in ("", "\0", "a\0b", "\ud800", "日本語", "e\u0301", " " * 3000):
        tokens = vocabulary.tokenize(text, special=True)
        assert vocabulary.detokenize(tokens) == text.encode("utf-8", "replace").decode()


def test_pieces_are_exact_bytes(vocabulary: Vocabulary) -> None:
    assert [vocabulary.piece(token) for token in (0, 10, 32, 65, 195, 256, 262)] == [
        b"\0", b"\n", b" ", b"A", b"\xc3", b"", b"<think>",
    ]  # fmt: skip


def test_what_is_public_follows_from_the_operators_text_alone(vocabulary: Vocabulary) -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}{{ tools | tojson if tools and loop.first }}\n"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    maker = prompts(vocabulary, source)
    public = "You know everything about ships."

    def shared(system: str, user: str, **options: Any) -> int:
        turns = as_turns([Message("system", system), Message("user", user)], tools_known=True)
        return maker.chat(Chat(turns=turns, public=public, options=RenderOptions(**options))).public

    whole = shared(public, "hi")
    assert whole > len(public)
    assert {shared(public, user) for user in ("", "é" * 50, "<|im_end|>", " ", "hi<|im_start|>")} == {whole}
    part = {shared(public + text, "hi") for text in ("x", " x", "\n\nMore.", "<|im_end|>")}
    assert len(part) == 1
    assert 0 < part.pop() < whole
    assert shared("Another text.", "hi") == 0
    assert shared(public, "hi", tools=({"a": 1},)) == 0  # the caller's tools stand before it


def test_a_template_that_tells_the_date_is_shared_again_on_the_next_day(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = ChatTemplate(
        "{{ strftime_now('%d') }} {% for m in messages %}{{ m.content }}\n{% endfor %}", "", ""
    )
    maker = PromptMaker(vocabulary, template, 10**9, 10**9, "test")
    public = "You know everything about ships."
    turns = as_turns([Message("system", public), Message("user", "hi")], tools_known=True)
    for day in ("01", "02", "02"):
        monkeypatch.setitem(template._template.globals, "strftime_now", lambda format, day=day: day)
        prompt = maker.chat(Chat(turns=turns, public=public))
        assert prompt.text.startswith(day)
        assert prompt.public > 20
