"""What of a grammar is refused before llama.cpp sees it: what nests too deeply for its parser, and what can be read in
so many ways at once that it would follow them for ever.

The grammar is read here once more, and followed the way llama.cpp does it: a set of stacks of what is still to come.
Where those take more work than any sensible grammar needs, it is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import msgspec

from lollms_kernel.errors import InvalidRequest

MAX_NESTING = 1200
MAX_RULES = 4000
MAX_PARTS = 60_000
"""Elements of all rules, repetitions written out."""
MAX_WORK = 150_000
"""Steps of following it, for the beginning of an answer."""
WALK = 48
"""Characters for which it is followed."""
_MOST_TIMES = 2000

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*) | (?P<text>"(?:\\.|[^"\\])*") | (?P<chars>\[(?:\\.|[^\]\\])*\]) | (?P<token>!?<[^>\s]*>)
    | (?P<rule>[a-zA-Z0-9_-]+)\s*(?P<defines>::=)? | (?P<times>\{\s*\d+\s*(?:,\s*\d*\s*)?\}) | (?P<sign>[|()*+?.])
    | (?P<odd>.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)|.", re.DOTALL)
_NAMED = {"n": "\n", "r": "\r", "t": "\t"}


class _Terminal(msgspec.Struct, frozen=True, eq=False):
    """What one character has to be: one out of these ranges, or none of them."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False

    def takes(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges) is not self.negated

    @property
    def example(self) -> str:
        if not self.negated:
            return self.ranges[0][0] if self.ranges else "a"
        return next((c for c in "a\x010 Zé" if self.takes(c)), "a")


_Part = _Terminal | int
_Alternative = tuple[_Part, ...]
_Stack = tuple[tuple[_Alternative, int], ...]


def check_grammar(text: str) -> None:
    """Raise InvalidRequest for a grammar that llama.cpp should not even see."""
    if "\0" in text:
        raise InvalidRequest("parameters.grammar has a NUL character.", hint="It must be GBNF.")
    reader = _Reader(text)
    start = reader.numbers.get("root")
    if start is None or not reader.rules.get(start):
        return  # llama.cpp says so itself
    _Follower(reader.rules).walk(start)


def _too_large(what: str) -> InvalidRequest:
    return InvalidRequest(
        f"parameters.grammar is too large: {what}.",
        hint="Use fewer rules, smaller repetitions, and nothing optional inside of what is repeated.",
    )


class _Reader:
    """The rules of a grammar, repetitions and groups written out as llama.cpp does it."""

    def __init__(self, text: str) -> None:
        self.rules: dict[int, list[_Alternative]] = {}
        self.numbers: dict[str, int] = {}
        self._count = 0
        self._parts = 0
        self._groups: list[tuple[list[_Alternative], list[_Part], int]] = []
        self._alternatives: list[_Alternative] = []
        self._sequence: list[_Part] = []
        self._last = 0
        """Where the element begins to which a repetition would apply."""
        current: int | None = None
        for found in _TOKEN.finditer(text):
            kind, value = found.lastgroup or "odd", found[0]
            if found["defines"]:
                self._finish(current)
                current = self._number(found["rule"])
                if len(self.numbers) > MAX_RULES:
                    raise _too_large(f"it has more than {MAX_RULES} rules")
            elif kind != "skip":
                self._take(kind, found["rule"] or value)
        self._finish(current)

    def _take(self, kind: str, value: str) -> None:
        if kind == "text":
            self._last = len(self._sequence)
            self._add(_Terminal(((c, c),)) for c in _characters(value[1:-1]))
        elif kind == "chars":
            self._last = len(self._sequence)
            self._add([_class(value[1:-1])])
        elif kind == "token" or value == ".":
            self._last = len(self._sequence)
            self._add([_Terminal((), negated=True)])
        elif kind == "rule":
            self._last = len(self._sequence)
            self._add([self._number(value)])
        elif kind == "times":
            low, comma, high = value[1:-1].partition(",")
            most = int(high) if high.strip() else (None if comma else int(low))
            self._repeat(int(low), most)
        elif value in "*+?":
            self._repeat(*{"*": (0, None), "+": (1, None), "?": (0, 1)}[value])
        elif value == "|":
            self._alternatives.append(tuple(self._sequence))
            self._sequence, self._last = [], 0
        elif value == "(":
            if len(self._groups) >= MAX_NESTING:
                raise _too_large(f"it is nested more than {MAX_NESTING} deep")
            self._groups.append((self._alternatives, self._sequence, self._last))
            self._alternatives, self._sequence, self._last = [], [], 0
        elif value == ")" and self._groups:
            inner = [*self._alternatives, tuple(self._sequence)]
            self._alternatives, self._sequence, _ = self._groups.pop()
            self._last = len(self._sequence)
            self._add([self._new(inner)])

    def _finish(self, current: int | None) -> None:
        if current is not None:
            self.rules[current] = [*self._alternatives, tuple(self._sequence)]
        self._groups, self._alternatives, self._sequence, self._last = [], [], [], 0

    def _number(self, name: str) -> int:
        if name not in self.numbers:
            self.numbers[name] = self._count
            self._count += 1
        return self.numbers[name]

    def _new(self, alternatives: list[_Alternative]) -> int:
        self.rules[self._count] = alternatives
        self._count += 1
        return self._count - 1

    def _add(self, parts: Iterable[_Part]) -> None:
        before = len(self._sequence)
        self._sequence.extend(parts)
        self._parts += len(self._sequence) - before
        if self._parts > MAX_PARTS:
            raise _too_large(f"it has more than {MAX_PARTS} parts")

    def _repeat(self, least: int, most: int | None) -> None:
        element = self._sequence[self._last :]
        del self._sequence[self._last :]
        if least > _MOST_TIMES:
            raise _too_large(f"something is repeated {least} times")
        if most is not None and most > _MOST_TIMES:
            most = None
        for _ in range(least):
            self._add(element)
        if most is None:
            rule = self._new([])
            self.rules[rule] = [(*element, rule), ()]
            self._add([rule])
            return
        inner: int | None = None
        for _ in range(max(0, most - least)):
            self._parts += len(element) + 1
            if self._parts > MAX_PARTS:
                raise _too_large(f"it has more than {MAX_PARTS} parts")
            inner = self._new([(*element, *(() if inner is None else (inner,))), ()])
        if inner is not None:
            self._add([inner])


def _characters(text: str) -> list[str]:
    return [_unescaped(found[0]) for found in _ESCAPE.finditer(text)]


def _unescaped(text: str) -> str:
    if len(text) == 1:
        return text
    if len(text) == 2:
        return _NAMED.get(text[1], text[1])
    number = int(text[2:], 16)
    return chr(number) if number < 0x110000 else "\ufffd"


def _class(text: str) -> _Terminal:
    negated = text.startswith("^")
    found = [match[0] for match in _ESCAPE.finditer(text[negated:])]
    ranges = []
    at = 0
    while at < len(found):
        low = high = _unescaped(found[at])
        if at + 2 < len(found) and found[at + 1] == "-":
            high = _unescaped(found[at + 2])
            at += 2
        ranges.append((low, high))
        at += 1
    return _Terminal(tuple(ranges), negated)


class _Follower:
    """Follows a grammar from the beginning of an answer, along the characters that leave most ways open."""

    def __init__(self, rules: dict[int, list[_Alternative]]) -> None:
        self._rules = rules
        self._work = 0

    def walk(self, start: int) -> None:
        """Raise InvalidRequest where that takes too much work."""
        stacks: set[_Stack] = set()
        for alternative in self._rules[start]:
            self._advance(((alternative, 0),) if alternative else (), stacks)
        for _ in range(WALK):
            tops = [
                part
                for stack in stacks
                if stack and isinstance(part := stack[-1][0][stack[-1][1]], _Terminal)
            ]
            examples = Counter(part.example for part in tops[:200])
            best = max(
                examples, key=lambda character: sum(part.takes(character) for part in tops), default=None
            )
            if best is None:
                return
            self._spend(len(tops) * len(examples) // 8)
            after: set[_Stack] = set()
            for stack in stacks:
                if stack:
                    alternative, place = stack[-1]
                    part = alternative[place]
                    if isinstance(part, _Terminal) and part.takes(best):
                        self._advance(_after(stack), after)
            stacks = after

    def _advance(self, stack: _Stack, into: set[_Stack]) -> None:
        waiting, seen = [stack], set()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            self._spend(1 + len(current) // 8)
            if not current:
                into.add(current)
                continue
            alternative, place = current[-1]
            part = alternative[place]
            if isinstance(part, _Terminal):
                into.add(current)
                continue
            rest = _after(current)
            for inner in self._rules.get(part, ()):
                waiting.append((*rest, (inner, 0)) if inner else rest)

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > MAX_WORK:
            raise _too_large("it can be read in too many ways at once")


def _after(stack: _Stack) -> _Stack:
    alternative, place = stack[-1]
    return (*stack[:-1], (alternative, place + 1)) if place + 1 < len(alternative) else stack[:-1]
