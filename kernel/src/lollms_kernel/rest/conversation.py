"""Turns the flat list of inputs with roles into a conversation: history, prompt, media and system text.

lollms_server answers the first `user_prompt` for ever and drops the rest. Here the list is the history, oldest
first, and the last `user_prompt` is answered.
"""

from __future__ import annotations

from typing import Literal

from ..types import Media, Message, Notice

SYSTEM_ROLES = frozenset({"system", "system_context", "system_prompt"})
USER_ROLES = frozenset({"user", "user_prompt", "prompt", "human"})
ASSISTANT_ROLES = frozenset(
    {"assistant", "assistant_reply", "assistant_response", "assistant_message", "ai", "bot", "model"}
)
TOOL_ROLES = frozenset({"tool", "tool_result", "function_result"})

MAX_IGNORED, MAX_ROLE = 20, 100
"""How many unknown roles are named, and how many of their characters: notices go back with the answer."""

Speaker = Literal["user", "assistant", "tool"]


class _Turn:
    def __init__(self, speaker: Speaker, content: str, media: list[Media]) -> None:
        self.speaker: Speaker = speaker
        self.content = content
        self.media = media


class Conversation:
    """Feed it the inputs in order."""

    def __init__(self) -> None:
        self._turns: list[_Turn] = []
        self._system: list[str] = []
        self._waiting: list[Media] = []
        self._ignored: dict[str, None] = {}

    def add_text(self, role: str, text: str) -> None:
        """A text; its role says whose words it is."""
        name = role.strip().lower()
        if name in SYSTEM_ROLES:
            self._system.append(text.strip())
        elif name in USER_ROLES:
            self._say("user", text)
        elif name in ASSISTANT_ROLES:
            self._say("assistant", text)
        elif name in TOOL_ROLES:
            self._say("tool", text)
        elif len(self._ignored) < MAX_IGNORED:
            self._ignored[role[:MAX_ROLE]] = None

    def add_media(self, media: Media) -> None:
        """Media belong to the prompt before them, or else to the next one."""
        if self._turns and self._turns[-1].speaker == "user":
            self._turns[-1].media.append(media)
        else:
            self._waiting.append(media)

    @property
    def system(self) -> str | None:
        """All system texts."""
        return "\n\n".join(text for text in self._system if text) or None

    def finish(self) -> tuple[tuple[Message, ...], tuple[Notice, ...]]:
        """The conversation, the last message being what to answer, and notices of what was not used."""
        notices = [_ignored_role(role) for role in self._ignored]
        if self._waiting:
            self._say("user", "")
        if not any(turn.speaker == "user" for turn in self._turns):
            notices.append(
                Notice("prompt_missing", "No input has the role 'user_prompt'; the prompt is empty.")
            )
            self._say("user", "")
        if self._turns[-1].speaker == "assistant":
            notices.append(
                Notice("reply_ignored", "An assistant's reply after the last user_prompt was not used.")
            )
            while self._turns[-1].speaker == "assistant":
                self._turns.pop()
        messages = tuple(Message(turn.speaker, turn.content, tuple(turn.media)) for turn in self._turns)
        return messages, tuple(notices)

    def _say(self, speaker: Speaker, text: str) -> None:
        media: list[Media] = []
        if speaker == "user":
            media, self._waiting = self._waiting, []
        self._turns.append(_Turn(speaker, text, media))


def _ignored_role(role: str) -> Notice:
    return Notice(
        "input_ignored",
        f"Text with the role '{role}' was not used; known roles are user_prompt, assistant_reply, system_context.",
        {"role": role},
    )
