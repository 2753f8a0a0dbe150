"""docs/rest.md says what a live server does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import httpx
import msgspec

from lollms_kernel.rest import conversation, wire
from lollms_kernel.rest.decode import decode_now

PAGE = (Path(__file__).parents[3] / "docs" / "rest.md").read_text("utf-8")


def section(title: str) -> str:
    return re.split(r"^##+ ", PAGE.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def table_words(title: str, column: int) -> set[str]:
    rows = re.findall(r"^\| (.+) \|$", section(title), re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row.split(" | ")[column])}


def test_given_the_page_when_compared_then_it_has_every_endpoint_and_no_other(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    served = {f"{method.upper()} {path}" for path, item in paths.items() for method in item}
    own = {name for name in served if " /api/v1" in name or name == "GET /health"}
    assert table_words("Endpoints", 0) == own - {
        "POST /api/v1/turn_detection"
    }  # docs/turn-detection.md has it


def test_given_the_page_when_compared_then_it_has_every_role_and_event() -> None:
    roles = (
        conversation.USER_ROLES
        | conversation.ASSISTANT_ROLES
        | conversation.SYSTEM_ROLES
        | conversation.TOOL_ROLES
    )
    assert table_words("Roles", 1) - {"role", "input_image", "mask_image"} == roles
    assert table_words("Streaming", 0) - {"type"} == set(get_args(wire.EventType))


def test_given_the_examples_when_read_then_they_are_a_request_and_an_answer() -> None:
    request, answer = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert decode_now(request.encode()).request.prompt == "And of Italy?"
    assert msgspec.json.decode(answer, type=wire.GenerateAnswer).output[0].thoughts


def test_given_the_page_when_read_then_every_field_of_the_body_is_on_it() -> None:
    assert all(f"`{name}`" in PAGE for name in wire.GenerateBody.__struct_fields__)
