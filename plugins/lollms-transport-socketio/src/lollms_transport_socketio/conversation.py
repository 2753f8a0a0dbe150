"""What a socket and its personality have said to each other, bounded."""

from __future__ import annotations

from typing import Literal

import msgspec

from lollms_kernel.types import Message

CONTINUE = "Continue."
"""What stands for an empty prompt, which asks to go on with the last answer."""


class Turn(msgspec.Struct, frozen=True):
    """Words of one side."""

    role: Literal["user", "assistant"]
    text: str


class Conversation:
    """Turns of both sides, oldest first; the oldest are forgotten when there are more than `limit` characters."""

    def __init__(self, limit: int, turns: list[Turn] | None = None) -> None:
        self._limit = limit
        self._turns = list(turns or ())
        self._size = sum(len(turn.text) for turn in self._turns)
        self._trim()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What is remembered."""
        return tuple(self._turns)

    def asking(self, prompt: str) -> tuple[Message, ...]:
        """The conversation with the next prompt. An empty one goes on with the last answer."""
        said = tuple(Message(turn.role, turn.text) for turn in self._turns)
        return (*said, Message("user", prompt or CONTINUE))

    def add(self, prompt: str, answer: str) -> None:
        """Remember an exchange; the answer to an empty prompt continues the one before."""
        answer = answer.strip()
        if not prompt and self._turns:
            last = self._turns.pop()
            self._size -= len(last.text)
            self._append("assistant", " ".join(part for part in (last.text, answer) if part))
        else:
            self._append("user", prompt)
            self._append("assistant", answer)
        self._trim()

    def _append(self, role: Literal["user", "assistant"], text: str) -> None:
        self._turns.append(Turn(role, text))
        self._size += len(text)

    def _trim(self) -> None:
        """An exchange goes as a whole, so that the first turn is always the user's."""
        while self._turns and self._size > self._limit:
            for turn in self._turns[:2]:
                self._size -= len(turn.text)
            del self._turns[:2]


def without_oldest(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation without the older half of its exchanges; the prompt, which is last, always stays."""
    exchanges = len(messages) // 2
    return messages[2 * max(1, exchanges // 2) :] if exchanges else messages
