"""Small tools that scripts of lollms_server use."""

from __future__ import annotations

import re
from typing import Any

_FENCE = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)$", re.MULTILINE)
_NAMED = re.compile(r"(?:#|//|<!--)?\s*(?:file(?:name)?\s*[:=]\s*)?(?P<name>[\w./-]+\.\w+)\s*(?:-->)?:?\s*$")
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL | re.IGNORECASE)
_OPEN = re.compile(r"<think>", re.IGNORECASE)


def extract_code_blocks(text: str, format: str = "markdown") -> list[dict[str, Any]]:
    """Each fenced block as `index`, `file_name`, `section`, `content`, `type` (its language) and `is_complete`."""
    blocks: list[dict[str, Any]] = []
    position = 0
    while opening := _FENCE.search(text, position):
        closing = _closing(text, opening)
        end = closing.start() if closing else len(text)
        before = text[position : opening.start()].rstrip().rpartition("\n")[2].strip().strip("*`")
        named = _NAMED.fullmatch(before)
        blocks.append(
            {
                "index": len(blocks),
                "file_name": named["name"] if named else "",
                "section": "",
                "content": text[opening.end() + 1 : end].rstrip("\n"),
                "type": opening["info"].strip().split(" ")[0] or "language-specific",
                "is_complete": closing is not None,
            }
        )
        if closing is None:
            break
        position = closing.end()
    return blocks


def _closing(text: str, opening: re.Match[str]) -> re.Match[str] | None:
    for found in _FENCE.finditer(text, opening.end()):
        same = found["fence"][0] == opening["fence"][0] and len(found["fence"]) >= len(opening["fence"])
        if same and not found["info"].strip():
            return found
    return None


def parse_thought_tags(text: str) -> tuple[str, str | None]:
    """The text without its `<think>` blocks, and what stood in them."""
    thoughts = [found.strip() for found in _THOUGHT.findall(text)]
    rest = _THOUGHT.sub("", text)
    unclosed = _OPEN.search(rest)
    if unclosed:
        inner = rest[unclosed.end() :].strip() or "(Tag was empty or at end of text)"
        thoughts.append(f"--- Incomplete Thought Block ---\n\n{inner}")
        rest = rest[: unclosed.start()]
    return rest.strip(), "\n\n".join(thought for thought in thoughts if thought) or None
