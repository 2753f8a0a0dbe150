"""What a script knows of the conversation, and putting prompts together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class LollmsContextDetails(dict[str, Any]):
    """The conversation; its keys are attributes as well."""

    def __init__(self, session: Any) -> None:
        order = session.order
        card = order.personality
        turns = [turn for turn in order.turns if turn[0] in ("user", "assistant")]
        names = {"user": card["user_name"], "assistant": card["name"]}
        text = "\n".join(f"!@>{names[role]}: {content}" for role, content in turns)
        super().__init__(
            prompt=order.prompt,
            conditionning=order.params.get("system_message") or "",
            discussion_messages=text,
            current_message=order.prompt,
            discussion_text=text,
            user_description="",
            documentation="",
            knowledge="",
            internet_search_results="",
            internet_search_infos=[],
            documentation_entries=[],
            positive_boost="",
            negative_boost="",
            fun_mode="",
            think_first_mode="",
            current_language="",
            ai_prefix=f"!@>{card['name']}: ",
            extra="",
            available_space=order.params.get("context_size", 4096),
            skills=[],
            is_continue=False,
            previous_chunk="",
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def build_prompt(self, *_: Any, **__: Any) -> str:
        """Conditioning and conversation as one text."""
        return build_prompt_from(self)


def build_prompt_from(details: Any, custom_entries: str = "", suppress: Iterable[str] = ()) -> str:
    """The parts of a context as one text, without the suppressed ones."""
    hidden = set(suppress)
    keys = ("documentation", "knowledge", "user_description", "discussion_messages")
    parts = [str(details.get(key) or "") for key in keys if key not in hidden]
    parts.append(custom_entries)
    return "\n".join(part for part in parts if part)
