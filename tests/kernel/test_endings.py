"""Answers end where a stop text begins, however it was split and spelled; and what personalities make of requests."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lollms_kernel.completion import fitted
from lollms_kernel.config.schema import PersonalityOverride
from lollms_kernel.contracts import Personality, PersonalityCard
from lollms_kernel.endings import Ending
from lollms_kernel.errors import PersonalityNotFound
from lollms_kernel.personalities import Personalities
from lollms_kernel.placeholders import expand
from lollms_kernel.types import GenerateRequest, Media, Message, ModelInfo, TextDelta


def shown(stops: tuple[str, ...], pieces: list[str]) -> tuple[str, bool]:
    ending = Ending(stops)
    deltas = [delta for piece in pieces for delta in ending.feed(TextDelta(piece))] + ending.finish()
    return "".join(delta.text for delta in deltas), ending.reached


@pytest.mark.parametrize(
    ("stops", "pieces", "text", "reached"),
    [
        (("!@>",), ["Hello!", "@", "> bye"], "Hello", True),
        (("!@>",), ["Hello!", "@", "!"], "Hello!@!", False),
        (("User:", "!@>"), ["a uS", "ER: b !@>"], "a ", True),
        (("<|end|>", "<|user|>"), list("x <|us <|USER|> y"), "x <|us ", True),
        (("ab",), ["a", "a", "b"], "a", True),
        (("End",), ["the end"], "the ", True),
        (("ß",), ["Straße"], "Stra", True),
        (("ab!@", "b"), ["ab", "!@"], "", True),
        (("ab!@", "b"), ["ab", "!"], "a", True),
    ],
)
def test_an_answer_ends_at_the_first_stop_text(
    stops: tuple[str, ...], pieces: list[str], text: str, reached: bool
) -> None:
    assert shown(stops, pieces) == (text, reached)


@settings(max_examples=400)
@given(
    st.lists(st.text("ab!@>", max_size=4), max_size=12),
    st.lists(st.text("ab!@>", min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_however_a_text_is_split_the_same_is_shown(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    cuts = [at for stop in stops if (at := text.lower().find(stop.lower())) >= 0]

    assert shown(tuple(stops), pieces)[0] == (text[: min(cuts)] if cuts else text)


@given(st.lists(st.text("ab!@>", min_size=1, max_size=4), max_size=12))
def test_tokens_come_with_the_last_of_their_text_and_none_is_lost(pieces: list[str]) -> None:
    ending = Ending(("!@>",))
    deltas = [
        d for n, piece in enumerate(pieces) for d in ending.feed(TextDelta(piece, (n,)))
    ] + ending.finish()

    tokens = [token for delta in deltas for token in delta.tokens]
    assert tokens == list(range(len(tokens)))
    if not ending.reached:
        assert len(tokens) == len(pieces)


def test_placeholders_are_filled_and_unknown_ones_stay() -> None:
    clock = lambda: datetime(2026, 3, 1, 14, 5, 9)  # noqa: E731

    text, public = expand("It is {{other}} {{date}} {{time}} {{date_time}} {{user_name}}", "Ann", clock)

    assert text == "It is {{other}} Sunday, March 01, 2026 14:05:09 Sunday, March 01, 2026 02:05:09 PM Ann"
    assert public == len("It is {{other}} ")
    assert expand("none {{x}}", "Ann", clock) == ("none {{x}}", 10)


def personality(**fields: object) -> Personality:
    return Personality(PersonalityCard(**{"id": "p", "name": "P", "conditioning": "Be brief.", **fields}))  # type: ignore[arg-type]


def ask(**fields: object) -> GenerateRequest:
    return GenerateRequest(**{"id": "1", "messages": (Message("user", "Hi"),), **fields})  # type: ignore[arg-type]


MARKED = "Be brief.\n\n### user:\nHi\n\n### ai:\nYes?\n\n### user:\nGo.\n\n### ai:\n"
BASE = ModelInfo(name="base", capabilities=("completion",))


@pytest.mark.parametrize(
    ("user", "assistant", "link", "prompt"),
    [
        ("User", "Bot", "\n", "Be brief.\n!@>User: Hi\n!@>Bot: Yes?\n!@>User: Go.\n!@>Bot:"),
        (
            "### user:\n",
            "### ai:\n",
            "\n\n",
            "Be brief.\n\n### user:\nHi\n\n### ai:\nYes?\n\n### user:\nGo.\n\n### ai:\n",
        ),
    ],
)
def test_a_model_without_chat_gets_prefixes_and_link_text(
    user: str, assistant: str, link: str, prompt: str
) -> None:
    turns = (Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Go."))
    one = personality(
        user_message_prefix=user, ai_message_prefix=assistant, link_text=link, anti_prompts=("END",)
    )

    request = fitted(one.condition(ask(messages=turns)), BASE)

    assert (request.raw_prompt, request.messages, request.system) == (prompt, (), None)
    marks = ["!@>User:", "!@>Bot:"] if user == "User" else ["### user:", "### ai:"]
    assert request.parameters["stop"] == ["END", *marks]
    assert request.ends_at == ("END", *marks)


@pytest.mark.parametrize("capabilities", [(), ("chat",), ("chat", "tools")])
def test_a_model_that_chats_or_of_which_nothing_is_known_gets_turns(capabilities: tuple[str, ...]) -> None:
    request = personality().condition(ask())

    assert fitted(request, ModelInfo(name="m", capabilities=capabilities)) is request


def test_a_request_without_personality_or_with_media_stays_as_it_is() -> None:
    picture = (Message("user", "x", (Media("image", "input_image", b"x"),)),)

    for request in (ask(), personality().condition(ask(messages=picture)), ask(raw_prompt="x", messages=())):
        assert fitted(request, BASE) is request


def test_only_what_the_operator_wrote_is_the_public_prefix() -> None:
    one = personality(conditioning="Hello {{user_name}}!", user_name="Ann")

    assert one.condition(ask()).public_prefix == len("Hello ")
    assert personality().condition(ask()).public_prefix == len("Be brief.")
    assert personality().condition(ask(system="mine")).public_prefix == 0
    assert personality().condition(ask(system_message="mine")).public_prefix == 0


def test_binding_model_and_functions_of_a_personality_are_defaults() -> None:
    one = personality(binding="b", model="m", functions=("f.g",))

    def chosen(**fields: object) -> tuple[str | None, str | None]:
        request = one.condition(ask(**fields))
        return request.binding, request.model

    assert chosen() == ("b", "m")
    assert chosen(binding="b") == ("b", "m")
    assert chosen(model="x") == ("b", "x")
    assert chosen(binding="c") == ("c", None)
    assert chosen(generation_type="tti") == (None, None)
    assert one.condition(ask(functions=("h.i", "f.g"))).functions == ("h.i", "f.g")
    assert one.condition(ask(functions=({"name": "x"},))).functions == ({"name": "x"}, "f.g")


def test_the_operators_changes_win_over_the_personality() -> None:
    override = PersonalityOverride(
        parameters={"n_predict": 5, "top_k": None}, binding="b", model="m", functions=("x.y",)
    )
    found = Personalities({"p": override, "off": PersonalityOverride(enabled=False)})
    found.add(personality(parameters={"max_tokens": 9, "top_k": 1, "seed": 2}, functions=("a.b",)))
    found.add(personality(id="sea/off", folder="off"))

    card = found.current["p"].card

    assert list(found.current) == ["p"]
    assert card.parameters == {"max_tokens": 5, "seed": 2}
    assert (card.binding, card.model, card.functions) == ("b", "m", ("x.y",))


def test_parameters_that_cannot_be_used_are_a_problem_and_not_used() -> None:
    found = Personalities({"p": PersonalityOverride(parameters={"temperature": "hot"})})
    found.add(personality(parameters={"seed": 2}))

    card = found.current["p"].card

    assert card.parameters == {"seed": 2}
    assert "temperature" in card.problems[0]


def test_a_personality_is_found_by_id_name_and_folder_in_this_order() -> None:
    found = Personalities({})
    for id, name, folder in (
        ("b/x", "Twin", "x"),
        ("a/x", "Twin", "x"),
        ("x", "Other", "x"),
        ("y", "b/x", "y"),
    ):
        found.add(personality(id=id, name=name, folder=folder))

    asked = ("b/x", "Twin", "x", "twin", "Other", "y")
    assert [found.find(name).card.id for name in asked] == ["b/x", "a/x", "x", "a/x", "x", "y"]
    with pytest.raises(PersonalityNotFound, match="'nobody' not found or disabled"):
        found.find("nobody")
