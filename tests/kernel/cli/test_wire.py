"""Server-sent events become chunks again, however they arrive."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.cli.http_partner import lines_of
from lollms_kernel.cli.wire import decode_events, encode_request
from lollms_kernel.errors import GenerationFailed
from lollms_kernel.types import (
    Chunk,
    Failed,
    Finished,
    GenerateRequest,
    Info,
    Media,
    Message,
    Notice,
    Output,
    Progress,
    TextDelta,
    ThoughtDelta,
    ToolCall,
    Usage,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def event(kind: str, content: Any = None, thoughts: str | None = None, **metadata: Any) -> str:
    """One event as the server writes it."""
    return "data: " + json.dumps(
        {"type": kind, "content": content, "thoughts": thoughts, "metadata": metadata}
    )


def output(data: str = "", kind: str = "text", **metadata: Any) -> dict[str, Any]:
    """One OutputData of a final event."""
    return {"type": kind, "data": data, "mime_type": None, "thoughts": None, "metadata": metadata}


def chunks(*lines: str) -> list[Chunk]:
    return list(decode_events(lines))


def test_a_stream_with_everything() -> None:
    call = {"id": "1", "name": "clock", "arguments": "{}"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 0, "total_tokens": 5}
    notice = {"code": "queued", "message": "It waited.", "details": {}}

    got = chunks(
        event("info", {"status": "progress", "step": 1, "total": 4}),
        event("info", "Starting"),
        event("chunk", None, "Hmm."),
        event("chunk", "Hello"),
        "",
        event("something_new"),
        event("function_call", call),
        event(
            "final",
            [
                output("Hello", finish_reason="length", usage=usage, notices=[notice], model_used="m"),
                output(json.dumps({}), "json"),
            ],
            request_id="r",
        ),
        event("chunk", "never read"),
    )

    assert got[:-1] == [
        Progress(1, 4),
        Info("Starting"),
        ThoughtDelta("Hmm.", 0, "closed"),
        TextDelta("Hello"),
        ToolCall("1", "clock", "{}"),
        Notice("queued", "It waited."),
    ]
    assert got[-1] == Finished("length", Usage(3, 2, 0), metadata={"model_used": "m", "request_id": "r"})


@pytest.mark.parametrize(("sent", "preview"), [("SlBFRw==", b"JPEG"), ("not base64!", None), (7, None)])
def test_a_preview_travels_with_its_step(sent: Any, preview: bytes | None) -> None:
    content = {"status": "progress", "step": 1, "total": 4, "preview": sent, "mime_type": "image/jpeg"}
    got = chunks(event("info", content), event("final", [output("Hello")]))
    assert got[0] == Progress(1, 4, preview, "image/jpeg")


def test_text_that_was_not_streamed_comes_with_the_end() -> None:
    assert chunks(event("final", [output("Hello")]))[0] == TextDelta("Hello")


def test_media_are_bytes_and_addresses_stay_text() -> None:
    got = chunks(
        event("final", [output("iVBORw==", "image"), output("http://x/y.png", "image"), output("ok", "json")])
    )

    assert [chunk.data for chunk in got if isinstance(chunk, Output)] == [b"\x89PNG", "http://x/y.png", "ok"]


def test_an_error_keeps_code_and_cure() -> None:
    got = chunks(
        event("chunk", "Hel"), event("error", "It crashed.", code="worker_crashed", hint="Try again.")
    )

    assert got == [TextDelta("Hel"), Failed("worker_crashed", "It crashed.", "Try again.")]


def test_a_stream_that_ends_early_is_an_error() -> None:
    with pytest.raises(GenerationFailed, match="broke off"):
        chunks(event("chunk", "Hel"))


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=20), max_size=5), st.data())
def test_lines_do_not_depend_on_how_the_bytes_arrive(lines: list[str], data: st.DataObject) -> None:
    body = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))

    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    assert list(lines_of(pieces)) == list(lines_of([body]))
    assert len(list(lines_of(pieces))) == len(lines)


@given(
    st.lists(st.text(max_size=30) | json_values.map(lambda value: f"data: {json.dumps(value)}"), max_size=5)
)
def test_any_lines_give_chunks_or_an_error_of_ours(lines: list[str]) -> None:
    try:
        got = chunks(*lines)
    except GenerationFailed:
        return
    assert isinstance(got[-1], Finished | Failed)


@given(
    st.sampled_from(["chunk", "info", "function_call", "error", "final"]),
    json_values,
    st.dictionaries(st.sampled_from(["notices", "usage", "timings", "code", "hint"]), json_values),
)
def test_any_content_gives_chunks_or_an_error_of_ours(
    kind: str, content: Any, metadata: dict[str, Any]
) -> None:
    try:
        got = chunks(event(kind, content, **metadata), event("final", [output("end")]))
    except GenerationFailed:
        return
    assert isinstance(got[-1], Finished | Failed)


def test_a_request_travels_with_roles_media_and_choices() -> None:
    picture = Media("image", "input_image", b"\x89PNG", "image/png", {"filename": "cat.png"})
    request = GenerateRequest(
        id="r",
        messages=(
            Message("user", "Hi"),
            Message("assistant", "Hello."),
            Message("user", "What is it?", (picture,)),
        ),
        system="Be brief.",
        personality="lollms",
        binding="b",
        parameters={"seed": 1},
    )

    body = encode_request(request)

    assert [(item["type"], item["role"], item["data"]) for item in body["input_data"]] == [
        ("text", "system_context", "Be brief."),
        ("text", "user_prompt", "Hi"),
        ("text", "assistant_reply", "Hello."),
        ("text", "user_prompt", "What is it?"),
        ("image", "input_image", "iVBORw=="),
    ]
    assert (
        body | {"personality": "lollms", "binding_name": "b", "stream": True, "parameters": {"seed": 1}}
        == body
    )
    assert "model_name" not in body
