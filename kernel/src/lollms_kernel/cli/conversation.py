"""The state of a chat: who answers, under which instructions, and what was said."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..errors import InvalidRequest
from ..types import GenerateRequest, Media, Message, Parameters


@dataclass
class Conversation:
    """Turns so far and the choices for the next one."""

    personality: str | None = None
    model: str | None = None
    binding: str | None = None
    system: str | None = None
    turns: list[Message] = field(default_factory=list)

    def ask(
        self,
        prompt: str,
        *,
        media: tuple[Media, ...] = (),
        generation_type: str = "ttt",
        parameters: Parameters | None = None,
    ) -> GenerateRequest:
        """The request that continues the conversation with `prompt`. Raises InvalidRequest if it is not text."""
        request = GenerateRequest(
            id=uuid.uuid4().hex[:16],
            generation_type=generation_type,
            messages=(*self.turns, Message("user", prompt, media)),
            system=self.system,
            personality=self.personality,
            binding=self.binding,
            model=self.model,
            parameters=parameters or {},
            source="cli",
        )
        _check_text(request)
        return request

    def add(self, prompt: str, answer: str) -> None:
        """Remember a turn; nothing is remembered of one that was not answered."""
        if answer:
            self.turns += [Message("user", prompt), Message("assistant", answer)]

    def save(self, file: Path) -> None:
        """Write the turns, as JSON into *.json, else as Markdown. Raises OSError."""
        if file.suffix == ".json":
            turns = [{"role": turn.role, "content": turn.content} for turn in self.turns]
            text = msgspec.json.format(msgspec.json.encode(turns), indent=2).decode() + "\n"
        else:
            names = {"user": "You", "assistant": self.personality or "Answer"}
            text = "\n".join(f"**{names[turn.role]}:** {turn.content}\n" for turn in self.turns)
        file.write_text(text, encoding="utf-8")


def read_lines(stream: Iterable[bytes]) -> Iterator[str]:
    """The lines of UTF-8 text. Raises InvalidRequest where it is none."""
    for line in stream:
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"stdin is not UTF-8 text: {error}.", hint="Convert it, or send the file along with --attach."
            ) from None


def _check_text(request: GenerateRequest) -> None:
    """Arguments that are not UTF-8 reach Python as lone surrogates, which no protocol can carry."""
    words = [
        request.system,
        request.personality,
        request.binding,
        request.model,
        request.prompt,
        request.parameters,
    ]
    try:
        msgspec.json.encode(words)
    except UnicodeEncodeError:
        raise InvalidRequest(
            "The command line is not UTF-8 text.", hint="Does the terminal use UTF-8?"
        ) from None
