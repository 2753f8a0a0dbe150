"""From chunks to OutputData and server-sent events; both ways tell the same."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.rest.encode import HEAVY, Answer, encode_event, encode_json
from lollms_kernel.rest.wire import StreamChunk
from lollms_kernel.thoughts import ThoughtParser
from lollms_kernel.types import (
    Chunk,
    Failed,
    Finished,
    Info,
    Notice,
    Output,
    Progress,
    TextDelta,
    ThoughtDelta,
    Timings,
    ToolCall,
    Usage,
)

FINISHED = Finished(
    "length", Usage(3, 4, 2), Timings(total=1.5), {"model": "m", "binding": "b", "context_truncated": True}
)


def answer_of(*chunks: Chunk, notices: Iterable[Notice] = ()) -> tuple[Answer, list[dict[str, Any]]]:
    """The answer, and the events that a streaming client reads, the final one included."""
    answer = Answer("00ff", list(notices))
    events = [event for event in map(answer.add, chunks) if event is not None]
    if not any(isinstance(chunk, Failed) for chunk in chunks):
        events.append(answer.final())
    return answer, parse(b"".join(encode_event(event) for event in events))


def parse(stream: bytes) -> list[dict[str, Any]]:
    """What a strict client makes of the stream: blocks end with a blank line and begin with `data: `."""
    blocks = stream.split(b"\n\n")
    assert blocks.pop() == b""
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks)
    return [msgspec.json.decode(block.removeprefix(b"data: ")) for block in blocks]


def whole(answer: Answer) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = msgspec.json.decode(encode_json(answer.outputs()))
    return decoded


def test_given_a_text_chunk_when_encoded_then_the_bytes_are_the_published_ones() -> None:
    event = Answer("1").add(TextDelta("he"))
    assert event is not None
    assert encode_event(event) == b'data: {"type":"chunk","content":"he","thoughts":null,"metadata":{}}\n\n'


def test_given_text_when_finished_then_the_text_output_tells_who_and_how() -> None:
    answer, events = answer_of(TextDelta(" Hel"), TextDelta("lo\n"), FINISHED)
    [output] = whole(answer)
    assert output == {
        "type": "text",
        "data": "Hello",
        "metadata": {
            "model_used": "m",
            "binding_instance": "b",
            "finish_reason": "length",
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 2, "total_tokens": 7},
            "timings": {**dict.fromkeys(Timings.__struct_fields__), "total": 1.5},
            "context_truncated": True,
        },
    }
    final = events[-1]
    assert final["content"] == [{**output, "mime_type": None, "thoughts": None}]
    assert (final["type"], final["thoughts"], final["metadata"]) == ("final", None, {"request_id": "00ff"})


def test_given_thoughts_when_streamed_then_each_block_is_told_once_when_it_closes() -> None:
    answer, events = answer_of(
        TextDelta("a "),
        ThoughtDelta("x", 0),
        ThoughtDelta(" ", 0, "closed"),
        TextDelta(" b "),
        ThoughtDelta("", 1, "closed"),
        ThoughtDelta("y", 2, "closed"),
        TextDelta(" c"),
        Finished(),
    )
    assert [(event["content"], event["thoughts"]) for event in events[:-1]] == [
        ("a ", None),
        (None, "x"),
        (" b ", None),
        (None, "y"),
        (" c", None),
    ]
    [output] = whole(answer)
    assert (output["data"], output["thoughts"]) == ("a  b  c", "x\n\ny")


def test_given_an_unclosed_thought_when_finished_then_it_is_marked() -> None:
    answer, events = answer_of(
        TextDelta("a "), ThoughtDelta("x "), ThoughtDelta("", 0, "incomplete"), Finished()
    )
    [output] = whole(answer)
    assert output["thoughts"] == "--- Incomplete Thought Block ---\n\nx"
    assert events[-2]["thoughts"] == output["thoughts"]
    answer, _ = answer_of(ThoughtDelta("", 0, "incomplete"), Finished())
    assert whole(answer)[0]["thoughts"] == (
        "--- Incomplete Thought Block ---\n\n(Tag was empty or at end of text)"
    )


def test_given_a_thought_that_nobody_closed_when_finished_then_it_is_not_lost() -> None:
    answer, events = answer_of(ThoughtDelta("x"), Finished())
    assert whole(answer)[0]["thoughts"] == "x"
    assert events[0]["thoughts"] == "x"


def test_given_media_when_finished_then_they_are_base64_in_their_order() -> None:
    answer, events = answer_of(
        Output("image", b"png", "image/png", {"seed": 1, "finish_reason": "own"}),
        Output("json", {"a": [1]}),
        FINISHED,
    )
    image, value = whole(answer)
    assert (image["type"], image["mime_type"]) == ("image", "image/png")
    assert base64.b64decode(image["data"]) == b"png"
    assert (image["metadata"]["seed"], image["metadata"]["finish_reason"]) == (1, "own")
    assert image["metadata"]["model_used"] == "m"
    assert value == {"type": "json", "data": {"a": [1]}, "metadata": {}}
    assert [event["type"] for event in events] == ["final"]
    assert set(events[0]["content"][1]) == {"type", "data", "mime_type", "thoughts", "metadata"}


def test_given_text_and_media_when_finished_then_the_text_comes_first() -> None:
    answer, _ = answer_of(Output("image", b"1", "image/png"), TextDelta("Here."), FINISHED)
    assert [output["type"] for output in whole(answer)] == ["text", "image"]


def test_given_an_output_of_unknown_type_when_finished_then_it_is_json() -> None:
    answer, _ = answer_of(Output("hologram", {"x": 1}), Finished())
    [output] = whole(answer)
    assert (output["type"], output["data"], output["metadata"]["type"]) == ("json", {"x": 1}, "hologram")


def test_given_nothing_when_finished_then_there_is_an_empty_text() -> None:
    answer, _ = answer_of(Finished())
    [output] = whole(answer)
    assert (output["type"], output["data"]) == ("text", "")


def test_given_a_tool_call_when_streamed_then_it_is_a_function_call_and_in_the_answer() -> None:
    call = ToolCall("c1", "weather", '{"city":"Paris"}')
    answer, events = answer_of(call, Finished("tool_calls"))
    told = {"id": "c1", "name": "weather", "arguments": '{"city":"Paris"}'}
    assert (events[0]["type"], events[0]["content"]) == ("function_call", told)
    [output] = whole(answer)
    assert (output["type"], output["data"]) == ("json", {"tool_calls": [told]})
    assert output["metadata"]["finish_reason"] == "tool_calls"


def test_given_info_and_progress_when_streamed_then_they_are_info_events() -> None:
    answer, events = answer_of(
        Info({"status": "loading"}),
        Info("wait"),
        Progress(1, 4, b"png", "image/png"),
        Progress(2, 4),
        Finished(),
    )
    assert [event["type"] for event in events] == ["info"] * 4 + ["final"]
    assert [event["content"] for event in events[:2]] == [{"status": "loading"}, "wait"]
    preview = base64.b64encode(b"png").decode()
    assert events[2]["content"] == {
        "status": "progress",
        "step": 1,
        "total": 4,
        "preview": preview,
        "mime_type": "image/png",
    }
    assert events[3]["content"] == {"status": "progress", "step": 2, "total": 4}
    assert [output["type"] for output in whole(answer)] == ["text"]


def test_given_notices_when_finished_then_all_are_in_the_metadata() -> None:
    first, second = Notice("a", "A.", {"x": 1}), Notice("b", "B.")
    answer, events = answer_of(TextDelta("hi"), second, Finished(), notices=[first])
    assert whole(answer)[0]["metadata"]["notices"] == [
        {"code": "a", "message": "A.", "details": {"x": 1}},
        {"code": "b", "message": "B.", "details": {}},
    ]
    assert len(events) == 2


def test_given_a_failure_when_streamed_then_the_error_is_the_last_event() -> None:
    _, events = answer_of(TextDelta("a"), Failed("worker_crashed", "It died.", "Try again."))
    assert events[-1] == {
        "type": "error",
        "content": "It died.",
        "thoughts": None,
        "metadata": {"request_id": "00ff", "code": "worker_crashed", "hint": "Try again."},
    }


def test_given_values_that_json_lacks_when_encoded_then_their_text_is_sent() -> None:
    event = parse(encode_event(StreamChunk("info", {"when": object, "nan": float("nan"), 3: b"\0"})))
    assert event[0]["content"] == {"when": str(object), "nan": None, "3": "AA=="}


def test_given_much_media_when_asked_then_the_answer_is_heavy() -> None:
    light, _ = answer_of(TextDelta("x" * 2 * HEAVY), Finished())
    heavy, _ = answer_of(Output("video", bytes(HEAVY + 1), "video/mp4"), Finished())
    assert (light.is_heavy, heavy.is_heavy) == (False, True)


# --- any sequence of chunks ---

WORD = st.text(max_size=12) | st.sampled_from(["\n\n", "data: ", "\r", "\u2028", "<think>", "</think>", "\0"])
THOUGHT = st.builds(ThoughtDelta, WORD, st.just(0), st.sampled_from(["", "closed", "incomplete"]))
OTHER = (
    st.builds(Info, WORD | st.dictionaries(WORD, WORD, max_size=2))
    | st.builds(Progress, st.integers(0, 9), st.integers(0, 9), st.none() | st.binary(max_size=9))
    | st.builds(ToolCall, WORD, WORD, WORD)
    | st.builds(Notice, WORD, WORD)
    | st.builds(Output, st.sampled_from(["image", "json", "odd"]), st.binary(max_size=9) | WORD)
)
CHUNKS = st.lists(st.builds(TextDelta, WORD) | THOUGHT | OTHER, max_size=12)


@given(CHUNKS)
def test_given_any_chunks_when_streamed_then_the_pieces_make_the_whole(chunks: list[Chunk]) -> None:
    answer, events = answer_of(*chunks, FINISHED)
    said = [event for event in events if event["type"] == "chunk"]
    text = "".join(event["content"] or "" for event in said).strip()
    thoughts = "\n\n".join(event["thoughts"] for event in said if event["thoughts"]) or None
    outputs = whole(answer)
    if outputs[0]["type"] == "text":
        assert (outputs[0]["data"], outputs[0].get("thoughts")) == (text, thoughts)
    else:
        assert (text, thoughts) == ("", None)
    assert all(set(event) == {"type", "content", "thoughts", "metadata"} for event in events)
    final = [
        {key: value for key, value in item.items() if value is not None} for item in events[-1]["content"]
    ]
    assert final == [{key: value for key, value in item.items() if value is not None} for item in outputs]


@given(st.text(alphabet="ab <think/>\n", max_size=60), st.integers(1, 7))
def test_given_raw_model_text_when_parsed_and_streamed_then_it_ends_as_the_whole_text_would(
    raw: str, size: int
) -> None:
    def outputs(*pieces: str) -> list[dict[str, Any]]:
        parser = ThoughtParser()
        deltas = [delta for piece in pieces for delta in parser.feed(piece)] + parser.finish()
        return whole(answer_of(*deltas, Finished())[0])

    assert outputs(*(raw[n : n + size] for n in range(0, len(raw), size))) == outputs(raw)
