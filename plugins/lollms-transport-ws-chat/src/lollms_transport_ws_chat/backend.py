"""Who answers: by default this server itself, through the kernel like every other protocol."""

from __future__ import annotations

import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from lollms_kernel.contracts import Caller, Kernel
from lollms_kernel.errors import ContextOverflow, error_from_code
from lollms_kernel.types import Failed, GenerateRequest, Message, TextDelta

from .events import Line

logger = logging.getLogger(__name__)

CONNECTED = "(The user has connected.)"
"""What stands before a welcome, for models."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants to be answered by, and speaks; None leaves it to the configuration."""

    binding: str | None = None
    model: str | None = None
    personality: str | None = None
    language: str | None = None


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation whose last line wants an answer, and who asks."""

    lines: tuple[Line, ...]
    client_id: str
    session: str
    caller: Caller
    choice: Choice = Choice()


class Backend(ABC):
    """Answers questions."""

    @abstractmethod
    def reply(self, question: Question) -> AsyncGenerator[str, None]:
        """The answer, piece by piece. Raises LollmsError with a message that the client may see; closing it stops."""

    @abstractmethod
    def fault(self) -> str | None:
        """Why it cannot answer now, None if nothing speaks against it."""

    @property
    def host(self) -> str | None:
        """Where conversations go if they leave this server."""
        return None

    async def open(self) -> None:  # noqa: B027
        """Get ready."""

    async def close(self) -> None:  # noqa: B027
        """Give everything back."""


class KernelBackend(Backend):
    """Answers through the kernel's pipeline: any binding, model and personality of this server."""

    def __init__(self, kernel: Kernel, default: Choice, source: str) -> None:
        self._kernel = kernel
        self._default = default
        self._source = source

    async def reply(self, question: Question) -> AsyncGenerator[str, None]:
        """See `Backend.reply`. A conversation too long for the model loses its older half, again if need be."""
        messages = _begun_by_user(conversation(question.lines))
        while True:
            try:
                async with aclosing(self._answer(question, messages)) as pieces:
                    async for piece in pieces:
                        yield piece
            except ContextOverflow:
                if len(messages) == 1:
                    raise
                messages = _newer_half(messages)
                logger.info("a conversation is too long for the model; its %d newest turns go", len(messages))
            else:
                return

    async def _answer(self, question: Question, messages: tuple[Message, ...]) -> AsyncGenerator[str, None]:
        request = GenerateRequest(
            id=uuid.uuid4().hex,
            messages=messages,
            personality=question.choice.personality or self._default.personality,
            binding=question.choice.binding or self._default.binding,
            model=question.choice.model or self._default.model,
            tenant=question.caller.tenant,
            source=self._source,
        )
        with question.caller.acting():
            async with self._kernel.stream(request) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, TextDelta):
                        yield chunk.text
                    elif isinstance(chunk, Failed):
                        raise error_from_code(chunk.code, chunk.message, hint=chunk.hint)

    def fault(self) -> str | None:
        """See `Backend.fault`."""
        name = self._default.binding or self._kernel.default_binding("ttt")
        if name is None:
            return "no binding for text is configured"
        status = next((status for status in self._kernel.instances() if status.name == name), None)
        if status is None:
            return f"there is no binding instance '{name}'"
        return f"binding instance '{name}' has failed" if status.state == "failed" else None


def conversation(lines: Sequence[Line]) -> tuple[Message, ...]:
    """The lines as turns that alternate: an interrupted question and the next one are one turn."""
    turns: list[Message] = []
    for line in lines:
        if turns and turns[-1].role == line.role:
            turns[-1] = Message(line.role, f"{turns[-1].content}\n{line.content}")
        else:
            turns.append(Message(line.role, line.content))
    return tuple(turns)


def _begun_by_user(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """With a turn before the welcome: many chat templates refuse a conversation that the assistant begins."""
    return messages if messages[0].role == "user" else (Message("user", CONNECTED), *messages)


def _newer_half(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    half = messages[len(messages) - len(messages) // 2 :]
    return half if half[0].role == "user" else (half[1:] or half)
