"""From the body of /generate to a GenerateRequest: roles, media, parameters, and hostile bodies."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.errors import LollmsError, ValidationFailed
from lollms_kernel.rest.decode import IN_THREAD, Order, decode, decode_now
from lollms_kernel.types import GENERATION_TYPES, MEDIA_TYPES, Media

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
PNG64 = base64.b64encode(PNG).decode()


def text(role: str, data: str) -> dict[str, Any]:
    return {"type": "text", "role": role, "data": data}


def order(*items: dict[str, Any], **fields: Any) -> Order:
    return decode_now(msgspec.json.encode({"input_data": items, **fields}), tenant="t")


def turns(decoded: Order) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in decoded.request.messages]


def media_of(**item: Any) -> Media:
    [media] = order(
        text("user_prompt", "look"), {"type": "image", "role": "input_image", **item}
    ).request.media
    return media


def problem_of(*items: dict[str, Any], **fields: Any) -> tuple[tuple[str | int, ...], str]:
    with pytest.raises(ValidationFailed) as caught:
        order(*items, **fields)
    [problem] = caught.value.problems
    return problem.loc, problem.msg


# --- prompt and history ---


def test_given_one_prompt_when_decoded_then_it_is_the_conversation() -> None:
    decoded = order(text("user_prompt", " hi "))
    assert turns(decoded) == [("user", " hi ")]
    assert decoded.request.prompt == " hi "
    assert (decoded.stream, decoded.notices) == (False, ())
    assert (decoded.request.tenant, decoded.request.source) == ("t", "rest")
    assert (decoded.request.system, decoded.request.system_message) == (None, None)


def test_given_ids_when_decoded_then_each_request_has_its_own_of_16_hex_digits() -> None:
    ids = {order(text("user_prompt", "hi")).request.id for _ in range(20)}
    assert len(ids) == 20
    assert all(len(id_) == 16 and int(id_, 16) >= 0 for id_ in ids)


@pytest.mark.parametrize("role", ["assistant_reply", "assistant", "Assistant_Response", "ai", "bot", "model"])
def test_given_a_history_when_decoded_then_the_last_prompt_is_answered(role: str) -> None:
    decoded = order(
        text("system_prompt", "Be brief."),
        text("user_prompt", "one"),
        text(role, "1"),
        text("user_prompt", "two"),
    )
    assert turns(decoded) == [("user", "one"), ("assistant", "1"), ("user", "two")]
    assert decoded.request.prompt == "two"
    assert decoded.request.system == "Be brief."


def test_given_prompts_without_replies_when_decoded_then_the_last_one_is_answered() -> None:
    decoded = order(text("user_prompt", "one"), text("user_prompt", "two"))
    assert turns(decoded) == [("user", "one"), ("user", "two")]
    assert decoded.request.prompt == "two"


def test_given_system_texts_when_decoded_then_they_are_joined_in_order() -> None:
    decoded = order(
        text("system_context", " a \n"),
        text("user_prompt", "x"),
        text("system_prompt", "b"),
        text("system", "  "),
    )
    assert decoded.request.system == "a\n\nb"


def test_given_text_prompt_when_decoded_then_it_is_the_first_prompt() -> None:
    assert turns(decode_now(b'{"text_prompt": "alone"}')) == [("user", "alone")]
    both = order(text("assistant_reply", "1"), text("user_prompt", "two"), text_prompt="one")
    assert turns(both) == [("user", "one"), ("assistant", "1"), ("user", "two")]


def test_given_an_unknown_role_when_decoded_then_a_notice_says_it_was_not_used() -> None:
    decoded = order(text("horoscope", "x"), text("horoscope", "y"), text("user_prompt", "hi"))
    assert turns(decoded) == [("user", "hi")]
    [notice] = decoded.notices
    assert (notice.code, notice.details) == ("input_ignored", {"role": "horoscope"})


def test_given_countless_unknown_roles_when_decoded_then_the_notices_stay_few() -> None:
    decoded = order(*(text(f"role {n}", "x") for n in range(1000)), text("user_prompt", "hi"))
    assert len(decoded.notices) == 20


def test_given_no_prompt_when_decoded_then_the_prompt_is_empty_and_a_notice_says_so() -> None:
    decoded = order(text("system_context", "x"))
    assert turns(decoded) == [("user", "")]
    assert [notice.code for notice in decoded.notices] == ["prompt_missing"]


def test_given_a_reply_at_the_end_when_decoded_then_the_prompt_before_it_is_answered() -> None:
    decoded = order(text("user_prompt", "one"), text("assistant_reply", "1"), text("assistant_reply", "1b"))
    assert turns(decoded) == [("user", "one")]
    assert [notice.code for notice in decoded.notices] == ["reply_ignored"]


# --- media ---


def test_given_media_around_prompts_when_decoded_then_each_goes_with_its_turn() -> None:
    def image(role: str) -> dict[str, Any]:
        return {"type": "image", "role": role, "data": PNG64, "mime_type": "image/png"}

    decoded = order(
        image("a"),
        text("user_prompt", "one"),
        image("b"),
        text("assistant_reply", "1"),
        image("c"),
        text("user_prompt", "two"),
    )
    roles = [[media.role for media in message.media] for message in decoded.request.messages]
    assert roles == [["a", "b"], [], ["c"]]


def test_given_media_only_when_decoded_then_they_come_with_an_empty_prompt() -> None:
    decoded = order(
        {"type": "audio", "role": "input_audio", "data": PNG64, "mime_type": "audio/wav"},
        generation_type="stt",
    )
    [message] = decoded.request.messages
    assert (message.role, message.content, message.media[0].data) == ("user", "", PNG)
    assert decoded.notices == ()


@pytest.mark.parametrize(
    ("data", "mime_type", "expected"),
    [
        (PNG64, "image/png", "image/png"),
        ("\n".join(PNG64[n : n + 76] for n in range(0, len(PNG64), 76)), "image/png", "image/png"),
        (f"data:image/webp;base64,{PNG64}", None, "image/webp"),
        (f"DATA:image/webp;base64,{PNG64}", "image/png", "image/png"),
        (f"data:;base64,{PNG64}", None, None),
        (f"data:;base64,{PNG64}", "", None),
    ],
)
def test_given_base64_or_a_data_url_when_decoded_then_the_bytes_arrive(
    data: str, mime_type: str | None, expected: str | None
) -> None:
    media = media_of(data=data, mime_type=mime_type, metadata={"name": "x"})
    assert media == Media("image", "input_image", PNG, expected, {"name": "x"})


def test_given_a_percent_encoded_data_url_when_decoded_then_the_bytes_arrive() -> None:
    assert media_of(data="data:image/svg+xml,%3Csvg/%3E").data == b"<svg/>"


def test_given_short_data_without_mime_type_when_decoded_then_it_passes() -> None:
    assert media_of(data="QUJD") == Media("image", "input_image", b"ABC", None, {})


@pytest.mark.parametrize("type_", ["image", "audio", "video"])
def test_given_long_base64_without_mime_type_when_decoded_then_the_rule_is_told(type_: str) -> None:
    location, message = problem_of({"type": type_, "role": "in", "data": PNG64})
    assert location == ("body", "input_data", 0, "mime_type")
    assert f"mime_type is REQUIRED for likely base64 data of type '{type_}' (role: in)" in message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("not base64!", "not valid base64"),
        ("QUJ", "not valid base64"),
        ("QQ==QQ==", "not valid base64"),
        ("été", "not valid base64"),
        ("", "empty"),
        ("data:image/png;base64", "not valid base64"),
        ("data:image/png;base64,%%%", "not valid base64"),
        ("https://example.com/cat.png", "not fetched"),
        ("file:///etc/hostname", "not fetched"),
        ("/etc/hostname!", "not valid base64"),
    ],
)
def test_given_data_that_is_no_base64_when_decoded_then_the_item_is_named(data: str, words: str) -> None:
    location, message = problem_of(
        text("user_prompt", "x"), {"type": "image", "role": "mask", "data": data, "mime_type": "image/png"}
    )
    assert location == ("body", "input_data", 1, "data")
    assert words in message and "base64" in message and "mask" in message


@pytest.mark.parametrize(
    ("data", "mime_type", "expected"),
    [
        ("Dear Sir or Madam,", None, (b"Dear Sir or Madam,", "text/plain")),
        ("# Title", "text/markdown", (b"# Title", "text/markdown")),
        ('{"a": 1}', "application/json", (b'{"a": 1}', "application/json")),
        (PNG64, "application/pdf", (PNG, "application/pdf")),
        (PNG64, None, (PNG, None)),
        ("pneumonoultramicroscopicsilicovolcanoconiosis is a long word", None, None),
    ],
)
def test_given_a_document_when_decoded_then_text_stays_text_and_base64_becomes_bytes(
    data: str, mime_type: str | None, expected: tuple[bytes, str | None] | None
) -> None:
    item = {"type": "document", "role": "context", "data": data, "mime_type": mime_type}
    [media] = order(text("user_prompt", "x"), item).request.media
    assert (media.data, media.mime_type) == (expected or (data.encode(), "text/plain"))


def test_given_a_binary_document_as_text_when_decoded_then_it_is_refused() -> None:
    location, _ = problem_of(
        {"type": "document", "role": "x", "data": "plain", "mime_type": "application/pdf"}
    )
    assert location == ("body", "input_data", 0, "data")


# --- the rest of the body ---


def test_given_all_fields_when_decoded_then_they_reach_the_request() -> None:
    decoded = order(
        text("user_prompt", "x"),
        personality="lollms",
        binding_name="b",
        model_name="m",
        generation_type="tti",
        stream=True,
        functions=[{"name": "f"}],
        parameters={"n_predict": 5, "stop_sequences": ["a"], "unheard_of": {"x": 1}},
    )
    request = decoded.request
    assert decoded.stream
    assert (request.personality, request.binding, request.model) == ("lollms", "b", "m")
    assert (request.generation_type, request.functions) == ("tti", ({"name": "f"},))
    assert request.parameters == {"n_predict": 5, "stop_sequences": ["a"], "unheard_of": {"x": 1}}


@pytest.mark.parametrize("kind", GENERATION_TYPES)
def test_given_each_generation_type_when_decoded_then_it_is_known(kind: str) -> None:
    assert order(text("user_prompt", "x"), generation_type=kind).request.generation_type == kind


def test_given_empty_names_and_null_parameters_when_decoded_then_defaults_apply() -> None:
    request = order(
        text("user_prompt", "x"),
        personality="",
        binding_name="",
        model_name=None,
        parameters=None,
        functions=None,
    ).request
    assert (request.personality, request.binding, request.model) == (None, None, None)
    assert (request.parameters, request.functions) == ({}, ())


def test_given_system_message_when_decoded_then_it_leaves_the_parameters() -> None:
    request = order(text("user_prompt", "x"), parameters={"system_message": "S", "seed": 1}).request
    assert (request.system_message, request.parameters) == ("S", {"seed": 1})
    assert order(text("user_prompt", "x"), parameters={"system_message": None}).request.system_message is None
    location, _ = problem_of(text("user_prompt", "x"), parameters={"system_message": 5})
    assert location == ("body", "parameters", "system_message")


@pytest.mark.parametrize("body", [b"{}", b'{"input_data": []}', b'{"input_data": [], "text_prompt": ""}'])
def test_given_no_input_when_decoded_then_the_documented_message_comes(body: bytes) -> None:
    with pytest.raises(ValidationFailed) as caught:
        decode_now(body)
    [problem] = caught.value.problems
    assert problem.msg == "Value error, Request must include a non-empty 'input_data' list."


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_given_an_integer_beyond_64_bits_when_decoded_then_it_is_refused(number: int) -> None:
    location, _ = problem_of(text("user_prompt", "x"), parameters={"deep": {"seed": [number]}})
    assert location == ("body", "parameters")


async def test_given_a_large_body_when_decoded_then_the_result_is_the_same() -> None:
    body = msgspec.json.encode({"input_data": [text("user_prompt", "x" * IN_THREAD)], "stream": True})
    decoded = await decode(body, "somebody")
    assert decoded.request.prompt == "x" * IN_THREAD
    assert decoded.request.tenant == "somebody"


# --- hostile bodies ---

TEXT = st.text(max_size=80)
DATA = TEXT | st.binary(max_size=80).map(lambda data: base64.b64encode(data).decode()) | st.just("data:,x")
ITEM = st.fixed_dictionaries(
    {
        "type": st.sampled_from(MEDIA_TYPES) | TEXT,
        "role": st.sampled_from(["user_prompt", "assistant_reply", "system_context"]) | TEXT,
        "data": DATA,
    },
    optional={"mime_type": st.none() | TEXT, "metadata": st.none() | st.dictionaries(TEXT, st.integers())},
)


@given(st.lists(ITEM, max_size=6), st.dictionaries(TEXT, st.none() | TEXT | st.integers()), st.booleans())
def test_given_any_inputs_when_decoded_then_a_request_or_a_lollms_error_comes(
    items: list[dict[str, Any]], parameters: dict[str, Any], stream: bool
) -> None:
    try:
        decoded = order(*items, parameters=parameters, stream=stream)
    except LollmsError as error:
        assert error.status == 422
        return
    assert decoded.request.messages[-1].role != "assistant"
    assert any(message.role == "user" for message in decoded.request.messages)
    media = [item for item in items if item["type"] != "text"]
    assert len(decoded.request.media) == len(media)
