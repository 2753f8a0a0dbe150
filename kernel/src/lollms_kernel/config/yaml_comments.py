"""Where the round-trip library for YAML keeps comments, so that edits leave each one where a reader expects it.

The library hangs the comment lines between two keys onto the last value before them, although people write them for
the key that follows. So whoever adds, replaces or takes away that value has to move its *tail*: the lines after the end
of its own line.
"""

from __future__ import annotations

from typing import Any

_SLOTS = 4
_BEFORE = 1


def take_tail(holder: Any, key: Any) -> str:
    """Cut the comment lines that follow the value of `key` off and return them."""
    holder, key = _last(holder, key)
    slots = holder.ca.items.get(key)
    at = _after(holder)
    token = slots[at] if slots else None
    if token is None:
        return ""
    own, _, tail = token.value.partition("\n")
    if not tail:
        return ""
    token.value = f"{own}\n"
    if not own:
        slots[at] = None
    return str(tail)


def give_tail(holder: Any, key: Any, tail: str) -> bool:
    """Let comment lines follow the value of `key`; False where the library cannot, after an empty section or list."""
    holder, key = _last(holder, key)
    if isinstance(holder[key], dict | list) and not holder[key]:
        return False
    slots = holder.ca.items.setdefault(key, [None] * _SLOTS)
    at = _after(holder)
    if slots[at] is None:
        slots[at] = _token("\n" + tail)
    else:
        slots[at].value = slots[at].value.rstrip("\n") + "\n" + tail
    return True


def give_head(holder: Any, key: Any, lines: str) -> None:
    """Let comment lines precede `key`."""
    if lines:
        slots = holder.ca.items.setdefault(key, [None] * _SLOTS)
        slots[_BEFORE] = [_token(lines), *(slots[_BEFORE] or ())]


def keys_of(holder: Any) -> list[Any]:
    """The keys of a section, or the indexes of a list."""
    return list(range(len(holder))) if isinstance(holder, list) else list(holder)


def _last(holder: Any, key: Any) -> tuple[Any, Any]:
    """The innermost place whose value ends where that of `key` ends."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    value = holder[key]
    while isinstance(value, CommentedMap | CommentedSeq) and value and not value.fa.flow_style():
        holder, key = value, keys_of(value)[-1]
        value = holder[key]
    return holder, key


def _after(holder: Any) -> int:
    """The slot for what follows a value, which differs between sections and lists."""
    return 0 if isinstance(holder, list) else 2


def _token(text: str) -> Any:
    from ruamel.yaml.error import CommentMark
    from ruamel.yaml.tokens import CommentToken

    return CommentToken(text, CommentMark(0), None)
