"""`POST /api/v1/turn_detection`: what the detector in use says about a turn."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta

from lollms_kernel.bodies import read_body
from lollms_kernel.errors import Problem, ValidationFailed

from .detector import Turn
from .judge import Judge, Verdict

MAX_BODY = 64 * 1024
"""Bytes; a conversation that matters for the end of a turn is short."""

MAX_HISTORY = 64
MAX_TEXT = 8000


class HistoryTurn(msgspec.Struct, frozen=True):
    """An earlier turn."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[str, Meta(max_length=MAX_TEXT)]


class TurnDetectionBody(msgspec.Struct, frozen=True):
    """A turn to judge, and what was said before it."""

    text: Annotated[str, Meta(max_length=MAX_TEXT, description="What the user has said so far.")]
    history: Annotated[list[HistoryTurn], Meta(description=f"Oldest first, at most {MAX_HISTORY}.")] = []
    language: Annotated[str, Meta(max_length=35, description="Such as `en` or `pt-BR`.")] | None = None


def turn_detection_route(judge: Judge) -> HTTPRouteHandler:
    """The route, judging with `judge`."""

    @post(
        "/api/v1/turn_detection",
        status_code=200,
        summary="Tell whether a spoken turn is complete",
        request_max_body_size=MAX_BODY,
        opt={"body": TurnDetectionBody},
        tags=["Voice chat"],
    )
    async def turn_detection(request: Request[Any, Any, Any]) -> Verdict:
        """By the detector that the voice chat uses."""
        asked = read_body(await request.body(), TurnDetectionBody)
        if len(asked.history) > MAX_HISTORY:
            problem = f"Value error, Expected at most {MAX_HISTORY} turns, the last ones"
            raise ValidationFailed([Problem("value_error", ("body", "history"), problem)])
        turns = [Turn(turn.role, turn.content) for turn in asked.history]
        return await judge.judge([*turns, Turn("user", asked.text)], asked.language)

    return turn_detection
