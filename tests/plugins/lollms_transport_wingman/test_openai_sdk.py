"""OpenAI's own Python library against this server: what its users do, on both ports."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from lollms_kernel.dummy import short_wav, small_png

from .conftest import LIMIT, Ports

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}


@pytest.fixture(params=["main", "inference"])
def sdk(request: pytest.FixtureRequest, ports: Ports) -> Iterator[openai.OpenAI]:
    url = f"{getattr(ports, request.param)}/v1"
    with openai.OpenAI(base_url=url, api_key="unused", timeout=LIMIT, max_retries=0) as client:
        yield client


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def reached(sdk: openai.OpenAI, messages: list[Any], **more: Any) -> dict[str, Any]:
    """What reached the engine of a chat whose last turn begins with `echo`."""
    answer = sdk.chat.completions.create(model="engine", messages=messages, **more)
    found: dict[str, Any] = json.loads(answer.choices[0].message.content or "")
    return found


# --- chat ---


def test_a_chat_answers_with_usage_and_reason(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="engine", messages=user("hello"), max_tokens=3)

    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "engine-model"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == "abc"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None and answer.usage.total_tokens == 9
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    assert answer.model_extra is not None and answer.model_extra["timings"]["predicted_per_second"] == 100.0


def test_a_stream_is_a_role_then_pieces_then_a_reason_then_usage(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="engine", messages=user("hello"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)

    assert chunks[0].choices[0].delta.role == "assistant"
    assert "content" in chunks[0].choices[0].delta.model_fields_set
    assert chunks[0].choices[0].delta.content is None
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-2]] == ["ab", "c"]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 2
    assert len({chunk.id for chunk in chunks}) == 1


def test_reasoning_comes_apart_from_the_answer(sdk: openai.OpenAI) -> None:
    whole = sdk.chat.completions.create(model="engine", messages=user("thoughts"))
    stream = sdk.chat.completions.create(model="engine", messages=user("thoughts"), stream=True)
    pieces = [chunk.choices[0].delta.model_extra for chunk in stream]
    tagged = sdk.chat.completions.create(
        model="engine", messages=user("thoughts"), extra_body={"reasoning_format": "deepseek-legacy"}
    )
    parsed = sdk.chat.completions.create(model="thinker", messages=user("x"))
    left = sdk.chat.completions.create(
        model="thinker", messages=user("x"), extra_body={"reasoning_format": "none"}
    )

    assert whole.choices[0].message.content == "done"
    assert (whole.choices[0].message.model_extra or {})["reasoning_content"] == "hmm"
    assert "".join((piece or {}).get("reasoning_content", "") for piece in pieces) == "hmm"
    assert tagged.choices[0].message.content == "<think>hmm</think>done"
    assert parsed.choices[0].message.content == "a  b"
    assert left.choices[0].message.content == "a <think>x y</THINK> b"


def test_tools_are_offered_called_and_answered(sdk: openai.OpenAI) -> None:
    asked = sdk.chat.completions.create(
        model="engine", messages=user("tools"), tools=[WEATHER], tool_choice="required"
    )
    message = asked.choices[0].message

    assert asked.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    found: list[Any] = list(message.tool_calls or ())
    calls = [(call.id, call.function.name, json.loads(call.function.arguments)) for call in found]
    assert calls == [("call_1", "look_up", {"word": "x"}), ("call_2", "add", {"a": 1})]

    turns = [
        *user("what is x?"),
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": "call_1", "content": "a letter"},
        {"role": "tool", "tool_call_id": "call_2", "content": "2"},
        *user("echo"),
    ]
    got = reached(sdk, turns, tools=[WEATHER], tool_choice="auto", parallel_tool_calls=False)
    assert got["messages"][1]["tool_calls"][0] == {
        "kind": "tool_call",
        "id": "call_1",
        "name": "look_up",
        "arguments": '{"word": "x"}',
        "index": 0,
    }
    assert got["messages"][2]["tool_call_id"] == "call_1"
    assert got["functions"] == [WEATHER]
    assert got["parameters"]["tool_choice"] == "auto"
    assert got["parameters"]["parallel_tool_calls"] is False


def test_a_streamed_tool_call_is_put_together_by_the_client(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model="engine", messages=user("tools"), tools=[WEATHER]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()

    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("look_up", '{"word": "x"}'),
        ("add", '{"a": 1}'),
    ]
    assert final.choices[0].finish_reason == "tool_calls"


def test_tool_choice_none_offers_nothing_and_an_unknown_tool_is_refused(sdk: openai.OpenAI) -> None:
    assert reached(sdk, user("echo"), tools=[WEATHER], tool_choice="none")["functions"] == []
    named = {"type": "function", "function": {"name": "other"}}
    with pytest.raises(openai.BadRequestError, match="other"):
        reached(sdk, user("echo"), tools=[WEATHER], tool_choice=named)


def test_a_json_schema_reaches_the_engine(sdk: openai.OpenAI) -> None:
    schema = {"name": "answer", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    wanted: Any = {"type": "json_schema", "json_schema": schema}

    assert reached(sdk, user("echo"), response_format=wanted)["parameters"]["response_format"] == wanted
    assert "response_format" not in reached(sdk, user("echo"), response_format={"type": "text"})["parameters"]
    with pytest.raises(openai.BadRequestError, match="json_schema"):
        reached(sdk, user("echo"), response_format={"type": "json_schema"})


def test_system_texts_images_and_sound_reach_the_engine(sdk: openai.OpenAI) -> None:
    png = base64.b64encode(small_png(3)).decode()
    wav = base64.b64encode(short_wav()).decode()
    parts = [
        {"type": "text", "text": "echo"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}},
    ]
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
        {"role": "user", "content": parts},
    ]

    got = reached(sdk, turns)

    assert got["system"] == "Be brief.\n\nAnd kind."
    [message] = got["messages"]
    assert [(item["type"], item["mime_type"]) for item in message["media"]] == [
        ("image", "image/png"),
        ("audio", "audio/wav"),
    ]
    assert message["media"][0]["metadata"] == {"detail": "low"}


def test_addresses_of_images_are_taken_only_where_the_instance_fetches_them(sdk: openai.OpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    turn: Any = [{"role": "user", "content": [{"type": "text", "text": "echo"}, image]}]

    with pytest.raises(openai.BadRequestError, match="data: URL"):
        sdk.chat.completions.create(model="engine", messages=turn)
    answer = sdk.chat.completions.create(model="unpooled", messages=turn)
    assert json.loads(answer.choices[0].message.content or "")["messages"][0]["media"][0]["data"] == 27


def test_several_answers_come_with_their_numbers_and_seeds(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="engine", messages=user("echo"), n=2, seed=41)
    seeds = [json.loads(choice.message.content or "")["parameters"]["seed"] for choice in answer.choices]
    stream = sdk.chat.completions.create(model="engine", messages=user("hello"), n=2, stream=True)
    texts = ["", ""]
    reasons = []
    for chunk in stream:
        [choice] = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        reasons += [choice.finish_reason] if choice.finish_reason else []

    assert [choice.index for choice in answer.choices] == [0, 1]
    assert seeds == [41, 42]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 4)
    assert texts == ["abc", "abc"]
    assert reasons == ["stop", "stop"]
    with pytest.raises(openai.BadRequestError, match="at most 2"):
        sdk.chat.completions.create(model="engine", messages=user("x"), n=3)


def test_logprobs_of_the_likeliest_tokens(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="engine", messages=user("x"), logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert [entry.token for entry in logprobs.content] == ["a", "b", "c"]
    assert [entry.token for entry in logprobs.content[0].top_logprobs] == ["a", "b"]
    assert logprobs.content[0].bytes == [97]

    stream = sdk.chat.completions.create(
        model="engine", messages=user("x"), logprobs=True, top_logprobs=1, stream=True
    )
    streamed = [chunk.choices[0].logprobs for chunk in stream]
    assert [len(found.content or []) for found in streamed if found] == [1, 1, 1]
    with pytest.raises(openai.BadRequestError, match="top_logprobs requires"):
        sdk.chat.completions.create(model="engine", messages=user("x"), top_logprobs=2)


def test_what_was_done_differently_is_said(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="engine", messages=user("notice"))
    assert [notice["code"] for notice in (answer.model_extra or {})["notices"]] == ["context_truncated"]


@pytest.mark.parametrize("page", ["README.md", "docs/openai.md"])
def test_the_example_of_the_documentation_works(
    page: str, ports: Ports, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[3] / page).read_text("utf-8")
    [example] = re.findall(r"^```python\n(from openai .*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(example.replace("http://127.0.0.1:9601", ports.main), page, "exec"), {})
    assert capsys.readouterr().out == "abc\n"


# --- errors ---


def test_a_prompt_that_is_too_long_says_by_how_much(sdk: openai.OpenAI) -> None:
    for model in ("engine", "worker"):
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as caught:
                sdk.chat.completions.create(model=model, messages=user("overflow"), stream=stream)
            error: Any = caught.value.body
            assert error["type"] == "exceed_context_size_error"
            assert (error["n_prompt_tokens"], error["n_ctx"]) == (602, 256)
            assert error["message"].startswith(
                "request (602 tokens) exceeds the available context size (256 tokens)"
            )


def test_an_error_in_the_middle_of_a_stream_is_raised_by_the_client(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(model="failing", messages=user("x"), stream=True)
    got = []
    with pytest.raises(openai.APIError, match="fails after 2"):
        for chunk in stream:
            got.append(chunk.choices[0].delta.content)
    assert got == [None, "a", "b"]


@pytest.mark.parametrize("kind", ["hello", "no such thing"])
def test_an_error_that_is_not_streamed_has_its_status(sdk: openai.OpenAI, kind: str) -> None:
    with pytest.raises(openai.InternalServerError, match="fails after 2"):
        sdk.chat.completions.create(model="failing", messages=user(kind))


# --- text completion ---


def test_text_completions_of_several_prompts(sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(model="engine", prompt=["x", "y"], max_tokens=3, logprobs=1)

    assert answer.object == "text_completion"
    assert [(choice.index, choice.text, choice.finish_reason) for choice in answer.choices] == [
        (0, "abc", "length"),
        (1, "abc", "length"),
    ]
    logprobs: Any = answer.choices[0].logprobs
    assert [entry["token"] for entry in logprobs.content] == ["a", "b", "c"]
    twice = sdk.completions.create(model="engine", prompt=["x", "x"]).usage
    assert twice is not None and (twice.prompt_tokens, twice.completion_tokens) == (14, 4)
    stream = list(sdk.completions.create(model="engine", prompt=[120, 121], stream=True))
    assert [chunk.choices[0].text for chunk in stream] == ["ab", "c", ""]
    assert stream[-1].choices[0].finish_reason == "stop"
    assert stream[-1].usage is not None


# --- embeddings, models ---


def test_embeddings_are_base64_unless_floats_are_wanted(sdk: openai.OpenAI) -> None:
    coded = sdk.embeddings.create(model="engine", input=["abc", "abcde"])
    plain = sdk.embeddings.create(model="engine", input="abc", encoding_format="float")
    tokens = sdk.embeddings.create(model="engine", input=[[1, 2], [3]], encoding_format="float")

    assert [item.embedding for item in coded.data] == [[3.0, 0.5, -1.0, 2.0], [5.0, 0.5, -1.0, 2.0]]
    assert coded.usage.prompt_tokens == 8
    assert plain.data[0].embedding == coded.data[0].embedding
    assert [item.embedding[0] for item in tokens.data] == [2.0, 1.0]
    with pytest.raises(openai.BadRequestError):
        sdk.embeddings.create(model="engine", input=[])
    with pytest.raises(openai.APIStatusError) as refused:
        sdk.embeddings.create(model="echo", input="x")
    assert refused.value.status_code == 501


def test_models_can_be_listed_and_each_can_be_asked_for(sdk: openai.OpenAI) -> None:
    for model in sdk.models.list():
        assert sdk.models.retrieve(model.id).id == model.id
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("no-such-model")


# --- images and sound ---


def test_images_are_made_and_edited(sdk: openai.OpenAI) -> None:
    made = sdk.images.generate(model="painter", prompt="a cat", n=2, size="64x64")
    edited = sdk.images.edit(
        model="painter", prompt="a dog", image=("a.png", small_png(1)), mask=("m.png", small_png(2)), n=1
    )
    as_url = sdk.images.generate(model="painter", prompt="a cat", response_format="url")

    assert made.data is not None and edited.data is not None and as_url.data is not None
    assert [base64.b64decode(image.b64_json or "") for image in made.data] == [small_png_of("a cat")] * 2
    assert base64.b64decode(edited.data[0].b64_json or "") == small_png_of("a dog")
    assert (as_url.data[0].url or "").startswith("data:image/png;base64,")
    with pytest.raises(openai.BadRequestError, match="size"):
        sdk.images.generate(model="painter", prompt="x", size="big")
    with pytest.raises(openai.APIStatusError) as refused:
        sdk.images.generate(model="echo", prompt="x")
    assert refused.value.status_code == 501


def small_png_of(prompt: str) -> bytes:
    import zlib

    return small_png(zlib.crc32(prompt.encode()))


def test_an_image_can_be_streamed(sdk: openai.OpenAI) -> None:
    events = list(sdk.images.generate(model="painter", prompt="a cat", stream=True, partial_images=1))
    assert [event.type for event in events] == ["image_generation.completed"]
    assert base64.b64decode(events[0].b64_json) == small_png_of("a cat")


def test_speech_and_transcripts(sdk: openai.OpenAI) -> None:
    spoken = sdk.audio.speech.create(model="speaker", voice="alloy", input="hello", response_format="wav")
    heard = sdk.audio.transcriptions.create(model="listener", file=("a.wav", short_wav()), language="en")
    text = sdk.audio.transcriptions.create(
        model="listener", file=("a.wav", short_wav()), response_format="text"
    )
    stream = sdk.audio.transcriptions.create(model="listener", file=("a.wav", short_wav()), stream=True)

    assert spoken.content == short_wav()
    assert spoken.response.headers["content-type"] == "audio/wav"
    assert heard.text == "I heard it."
    assert str(text).strip() == "I heard it."
    events = list(stream)
    assert "".join(getattr(event, "delta", "") for event in events) == "I heard it."
    assert events[-1].type == "transcript.text.done"
    for wrong in (
        lambda: sdk.audio.speech.create(model="echo", voice="a", input="x"),
        lambda: sdk.audio.transcriptions.create(model="echo", file=("a.wav", short_wav())),
        lambda: sdk.audio.transcriptions.create(
            model="listener", file=("a.wav", short_wav()), response_format="srt"
        ),
    ):
        assert status_of(wrong) == 501


def status_of(ask: Callable[[], object]) -> int:
    with pytest.raises(openai.APIStatusError) as refused:
        ask()
    return refused.value.status_code
