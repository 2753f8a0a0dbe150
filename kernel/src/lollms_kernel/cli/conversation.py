"""The state of a chat: who answers, under which instructions, and what was said."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..types import GenerateRequest, Message


@dataclass
class Conversation:
    """Turns so far and the choices for the next one."""

    personality: str | None = None
    model: str | None = None
    binding: str | None = None
    system: str | None = None
    turns: list[Message] = field(default_factory=list)

    def ask(self, prompt: str) -> GenerateRequest:
        """The request that continues the conversation with `prompt`."""
        return GenerateRequest(
            id=uuid.uuid4().hex[:16],
            messages=(*self.turns, Message("user", prompt)),
            system=self.system,
            personality=self.personality,
            binding=self.binding,
            model=self.model,
            source="cli",
        )

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
