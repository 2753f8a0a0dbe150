"""Bodies that nobody would send by accident: whatever comes, the answer is one of the protocol's."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lollms_transport_wingman.inference.routes import ROUTES

from .test_native import GIVEN

POSTS = sorted(path for path, there in ROUTES.items() if "POST" in there)
TYPES = {
    "invalid_request_error",
    "not_found_error",
    "not_supported_error",
    "exceed_context_size_error",
    "unavailable_error",
    "permission_error",
}

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(["", "x", "\x00", "\ud7ff", "😀" * 5, "../..", "personality:x", "engine/", "/engine"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
NAMES = sorted(
    {
        *GIVEN,
        *"prompt messages model stream n n_cmpl max_tokens max_completion_tokens stop tools tool_choice functions "
        "function_call response_format logprobs top_logprobs json_schema logit_bias id_slot cache_prompt return_tokens "
        "return_progress response_fields stream_options sse_ping_interval verbose personality reasoning_format "
        "chat_template_kwargs add_generation_prompt continue_final_message input_prefix input_suffix "
        "input_extra content "
        "add_special with_pieces tokens input encoding_format embd_normalize dimensions query documents texts top_n "
        "return_documents size quality response_format voice speed input stream_format partial_images seed".split(),
    }
)
BODIES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.one_of(
            st.sampled_from(["system", "user", "assistant", "tool", "developer", "function"]), VALUES
        ),
        "content": st.one_of(
            VALUES,
            st.lists(
                st.fixed_dictionaries(
                    {
                        "type": st.sampled_from(
                            ["text", "image_url", "input_audio", "file", "refusal", "video"]
                        )
                    },
                    optional={
                        name: VALUES for name in ("text", "image_url", "input_audio", "file", "refusal")
                    },
                ),
                max_size=3,
            ),
        ),
        "tool_calls": VALUES,
        "tool_call_id": VALUES,
        "name": VALUES,
    },
)


def judge(response: httpx.Response) -> None:
    """Fail unless it is an answer or an error as the protocol has them."""
    if response.status_code == 200:
        return
    error = json.loads(response.content)["error"]
    assert response.status_code < 500 or response.status_code in (501, 503), response.text
    assert error["code"] == response.status_code
    assert error["type"] in TYPES
    assert error["message"]


def post(inference: httpx.Client, path: str, body: Any) -> None:
    content = json.dumps(body).encode()
    judge(inference.post(path, content=content))


FEW = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FEW
@given(st.sampled_from(POSTS), BODIES)
@example("/completion", {"prompt": "x", "n_predict": -(2**63)})
@example("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [None]})
@example("/embeddings", {"input": [[[1]]]})
@example("/embedding", {"content": {"content": None}})
@example("/rerank", {"query": "x", "documents": [{"text": None}]})
@example("/tokenize", {"content": [2**31]})
def test_any_body_to_any_endpoint(inference: httpx.Client, path: str, body: dict[str, Any]) -> None:
    post(inference, path, body)


@FEW
@given(BODIES)
def test_any_parameters_of_a_completion(inference: httpx.Client, body: dict[str, Any]) -> None:
    post(
        inference,
        "/completion",
        {"prompt": "x", **{k: v for k, v in body.items() if k != "prompt"}, "stream": False},
    )


@FEW
@given(st.lists(st.one_of(MESSAGE, VALUES), max_size=4), BODIES)
@example([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}], {})
@example(
    [{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,AAAA"}]}], {}
)
@example([{"role": "system", "content": "x"}], {})
@example(
    [
        {
            "role": "assistant",
            "content": "x",
            "tool_calls": [{"function": {"name": "f", "arguments": {"a": 2**66}}}],
        }
    ],
    {},
)
def test_any_conversation(inference: httpx.Client, messages: list[Any], body: dict[str, Any]) -> None:
    more = {name: value for name, value in body.items() if name not in ("messages", "stream")}
    post(inference, "/v1/chat/completions", {**more, "messages": messages})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(POSTS), st.binary(max_size=60))
def test_any_bytes(inference: httpx.Client, path: str, body: bytes) -> None:
    judge(inference.post(path, content=body))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["/v1/images/edits", "/v1/audio/transcriptions"]),
    st.binary(max_size=200),
    st.sampled_from(
        [
            "multipart/form-data; boundary=x",
            "multipart/form-data",
            "multipart/form-data; boundary=" + "y" * 300,
            "a/b",
        ]
    ),
)
@example(
    "/v1/audio/transcriptions",
    b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n\r\n--x--\r\n',
    "multipart/form-data; boundary=x",
)
def test_any_form(inference: httpx.Client, path: str, body: bytes, kind: str) -> None:
    response = inference.post(path, content=body, headers={"Content-Type": kind})
    judge(response)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=20), st.text(max_size=10), VALUES)
def test_any_slot_action(inference: httpx.Client, slot: str, action: str, filename: Any) -> None:
    path = f"/slots/{quote(slot, safe='')}?action={quote(action)}"
    judge(inference.post(path, content=json.dumps({"filename": filename}).encode()))
