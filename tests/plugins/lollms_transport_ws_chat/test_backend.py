"""What the kernel gets to answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from lollms_kernel.errors import ContextOverflow, WorkerCrashed
from lollms_kernel.types import Chunk, Failed, Finished, GenerateRequest, TextDelta, ThoughtDelta
from lollms_transport_ws_chat.backend import CONNECTED, Choice, KernelBackend, Question
from lollms_transport_ws_chat.events import Line

from .world import Anybody

LINES = (
    Line("assistant", "Welcome.", "1"),
    Line("user", "one", "2"),
    Line("user", "two", "3"),
    Line("assistant", "answer", "3"),
    Line("user", "three", "4"),
)


class FakeKernel:
    """Refuses more than `room` turns; then streams these chunks."""

    def __init__(self, *chunks: Chunk, room: int = 100) -> None:
        self.chunks = chunks
        self.room = room
        self.requests: list[GenerateRequest] = []

    @asynccontextmanager
    async def stream(self, request: GenerateRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        self.requests.append(request)
        if len(request.messages) > self.room:
            raise ContextOverflow("too long")

        async def chunks() -> AsyncIterator[Chunk]:
            for chunk in self.chunks:
                yield chunk

        yield chunks()


async def ask(kernel: FakeKernel, choice: Choice = Choice(), default: Choice = Choice()) -> str:  # noqa: B008
    backend = KernelBackend(kernel, default, "ws_chat")  # type: ignore[arg-type]  # as much of one as is needed
    question = Question(lines=LINES, client_id="u", session="s", caller=Anybody(), choice=choice)
    async with aclosing(backend.reply(question)) as pieces:
        return "".join([piece async for piece in pieces])


def turns(request: GenerateRequest) -> list[tuple[str, Any]]:
    return [(message.role, message.content) for message in request.messages]


async def test_turns_alternate_and_the_user_begins() -> None:
    kernel = FakeKernel(ThoughtDelta("hm"), TextDelta("a"), TextDelta("b"), Finished())
    assert await ask(kernel) == "ab"
    assert turns(kernel.requests[0]) == [
        ("user", CONNECTED),
        ("assistant", "Welcome."),
        ("user", "one\ntwo"),
        ("assistant", "answer"),
        ("user", "three"),
    ]
    assert kernel.requests[0].source == "ws_chat"


async def test_a_conversation_too_long_for_the_model_loses_its_older_half() -> None:
    kernel = FakeKernel(TextDelta("a"), room=1)
    assert await ask(kernel) == "a"
    assert [len(request.messages) for request in kernel.requests] == [5, 1]
    assert turns(kernel.requests[-1]) == [("user", "three")]
    with pytest.raises(ContextOverflow):
        await ask(FakeKernel(room=0))


async def test_what_fails_in_the_middle_is_raised() -> None:
    with pytest.raises(WorkerCrashed):
        await ask(FakeKernel(TextDelta("a"), Failed("worker_crashed", "gone")))


async def test_the_client_chooses_before_the_configuration() -> None:
    kernel = FakeKernel(TextDelta("a"))
    await ask(kernel, Choice(model="m"), Choice(binding="b", model="other", personality="p"))
    request = kernel.requests[0]
    assert (request.binding, request.model, request.personality) == ("b", "m", "p")
