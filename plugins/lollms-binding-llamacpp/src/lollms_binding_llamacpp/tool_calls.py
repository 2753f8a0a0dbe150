"""Finds tool calls in an answer while it is being written.

Understood are `<tool_call>{…}</tool_call>` (Hermes, Qwen), `[TOOL_CALLS][{…}]` and `[TOOL_CALLS]name[ARGS]{…}`
(Mistral), `<|python_tag|>{…}` and an answer that is nothing but a JSON object (Llama 3), and
`<function=name>{…}</function>`. What looks like a call and turns out to be none is text again.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection
from typing import Any

from lollms_kernel.types import ToolCall

_BEGINS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function=")
_ENDS = {"<tool_call>": "</tool_call>", "<function=": "</function>"}
_THINK, _UNTHINK = "<think>", "</think>"
_NAMED = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\][^\[]*)?(?:\[ARGS\])?\s*(?=\{)")
_DECODER = json.JSONDecoder()
MAX_CALLS = 128


class ToolCallParser:
    """Feed it text as it comes; it gives texts and calls. `names` are the functions that there are."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._held = ""
        self._begin = ""
        """The mark of the call that is being read; "{" for an answer that began with JSON."""
        self._thinking = False
        self._only_space = True
        self._after_a_call = False
        self.found = 0

    def feed(self, text: str) -> list[str | ToolCall]:
        """What is certain now."""
        self._held += text
        return self._go_on(last=False)

    def finish(self) -> list[str | ToolCall]:
        """What was held back, now that no more text comes."""
        return self._go_on(last=True)

    @property
    def holds(self) -> bool:
        """Whether text is held back."""
        return bool(self._held or self._begin)

    def _go_on(self, last: bool) -> list[str | ToolCall]:
        out: list[str | ToolCall] = []
        while True:
            before = (len(self._held), self._begin, self._thinking)
            if self._begin:
                if not self._read_calls(out, last):
                    break
            elif not self._read_text(out, last):
                break
            if before == (len(self._held), self._begin, self._thinking):
                break
        return out

    # --- text ---

    def _read_text(self, out: list[str | ToolCall], last: bool) -> bool:
        """Pass text on up to the next mark; False where more text is needed first. Space around calls is left out."""
        if self._after_a_call:
            self._held = self._held.lstrip()
            if not self._held:
                return False
            self._after_a_call = False
        if self._only_space and not self._thinking and self._held.lstrip().startswith("{"):
            self._begin = "{"
            return True
        marks = (_UNTHINK,) if self._thinking else (*_BEGINS, _THINK)
        found = min(((at, mark) for mark in marks if (at := self._held.find(mark)) >= 0), default=None)
        if found is None:
            keep = 0 if last else max(_overlap(self._held, mark) for mark in marks)
            end = len(self._held) - keep
            if not last and not self._thinking:
                end = len(self._held[:end].rstrip())  # a call may follow
            self._show(out, self._held[:end])
            self._held = self._held[end:]
            return False
        at, mark = found
        if mark in (_THINK, _UNTHINK):
            self._show(out, self._held[: at + len(mark)])
            self._held = self._held[at + len(mark) :]
            self._thinking = mark == _THINK
            self._only_space = mark == _UNTHINK
            return True
        self._show(out, self._held[:at].rstrip())
        self._held = self._held[at + len(mark) :]
        self._begin = mark
        return True

    def _show(self, out: list[str | ToolCall], text: str) -> None:
        if text:
            out.append(text)
            self._only_space = self._only_space and not text.strip()

    # --- calls ---

    def _read_calls(self, out: list[str | ToolCall], last: bool) -> bool:
        """Read what follows a mark; False where more text is needed first."""
        calls, end = self._parse()
        if calls is None:
            if not last and end < 0:
                return False  # it may still become one
            self._give_up(out)
            return True
        out += calls
        self._held = self._held[end:]
        closing = _ENDS.get(self._begin)
        if closing is not None:
            rest = self._held.lstrip()
            if not rest.startswith(closing):
                if not last and closing.startswith(rest):
                    # the call is told already; its closing mark is still to come
                    self._begin = f"after {closing}"
                    return True
            else:
                self._held = rest[len(closing) :]
        self._after_call()
        return True

    def _after_call(self) -> None:
        self._begin = ""
        self._after_a_call = self._only_space = True

    def _give_up(self, out: list[str | ToolCall]) -> None:
        mark = self._begin if self._begin in _BEGINS else ""
        self._begin = ""
        self._only_space = False
        text, self._held = mark + self._held, ""
        if text:
            out.append(text)

    def _parse(self) -> tuple[list[ToolCall] | None, int]:
        """The calls that what is held begins with, and where they end; -1: more text is needed, -2: there are none."""
        if self._begin.startswith("after "):
            closing = self._begin.removeprefix("after ")
            rest = self._held.lstrip()
            if rest.startswith(closing):
                return [], len(self._held) - len(rest) + len(closing)
            return (None, -1) if closing.startswith(rest) else ([], 0)
        text = self._held
        start = len(text) - len(text.lstrip())
        name = None
        if self._begin == "<function=":
            head, _, _ = text.partition(">")
            if len(head) == len(text):
                return None, -1
            name, start = head.strip(), len(head) + 1
            start += len(text[start:]) - len(text[start:].lstrip())
        elif self._begin == "[TOOL_CALLS]" and not text[start:].startswith(("[", "{")):
            match = _NAMED.match(text)
            if match is None:
                return None, -1
            name, start = match[1], match.end()
        if start >= len(text):
            return None, -1
        if text[start] not in "[{":
            return None, -2
        try:
            value, end = _DECODER.raw_decode(text, start)
        except ValueError:
            return None, -1
        except RecursionError:
            return None, -2
        calls = self._calls(value, name)
        return (None, -2) if calls is None else (calls, end)

    def _calls(self, value: Any, name: str | None) -> list[ToolCall] | None:
        entries = value if isinstance(value, list) else [value]
        calls: list[ToolCall] = []
        for entry in entries:
            call = self._call(entry, name)
            if call is None or self.found + len(calls) >= MAX_CALLS:
                return None
            calls.append(call)
        for index, call in enumerate(calls):
            calls[index] = ToolCall(call.id, call.name, call.arguments, self.found + index)
        self.found += len(calls)
        return calls

    def _call(self, entry: Any, name: str | None) -> ToolCall | None:
        arguments = entry
        if name is None:
            if not isinstance(entry, dict):
                return None
            inner = entry.get("function")
            entry = inner if isinstance(inner, dict) else entry
            name = entry.get("name")
            arguments = entry.get("arguments", entry.get("parameters", {}))
        if not isinstance(name, str) or (self._begin == "{" and name not in self._names):
            return None
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return ToolCall(f"call_{secrets.token_hex(12)}", name, text)


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that is a beginning of `mark`."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)
