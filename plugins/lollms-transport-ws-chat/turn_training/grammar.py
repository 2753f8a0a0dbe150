"""Sentences out of `phrases/`, with a verdict for every place where a speaker may pause.

{NAME}   an entry of lexicon.txt or grammar.txt      (a|b)  one of them      [x]  there half of the time
/        the turn may be complete here               ~      nobody pauses here, so no verdict
<...>    the / inside do not count: what follows is needed, as after "if it rains"
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .verbs import with_forms

PHRASES = Path(__file__).parent / "phrases"
MAX_DEPTH = 14
MAX_WORDS = 24

OPEN, COMPLETE, SILENT, NEEDED = 0, 1, 2, 3
"""Verdicts on the place after a word: more has to come; the turn may end; nobody pauses; people do pause, but more has
to come."""


class Word(NamedTuple):
    """A word and the verdict on the place after it."""

    text: str
    after: int


class Template(NamedTuple):
    """A whole turn, its share of all turns, and the kind of question it answers ("" for any)."""

    node: Node
    weight: float
    answers: str


Node = tuple[str, tuple["Node | str", ...]]
_TOKEN = re.compile(r"[{}()\[\]<>|/~]|[^\s{}()\[\]<>|/~]+")


class TooLong(Exception):
    """This try nests too deeply; another one will not."""


class Grammar:
    """All phrases, ready to make turns."""

    def __init__(self) -> None:
        self.entries: dict[str, list[Node]] = {}
        for name, alternatives in with_forms(entries(PHRASES / "lexicon.txt")).items():
            self.entries[name] = [parse(text) for text in alternatives]
        for name, alternatives in entries(PHRASES / "grammar.txt").items():
            self.entries[name] = [parse(text) for text in alternatives]
        self.templates = [t for name in ("templates", "spoken") for t in _templates(PHRASES / f"{name}.txt")]
        self._weights = [template.weight for template in self.templates]

    def intransitive(self) -> set[str]:
        """Every form of the verbs that need no object: after one of them a turn may well be complete."""
        names = [
            name for name in self.entries if name.startswith("VI") and not name.startswith(("VIO", "VING"))
        ]
        return {words_of(node)[-1] for name in names for node in self.entries[name]}

    def turn(self, rng: random.Random) -> tuple[list[Word], str]:
        """A random turn and the kind of question that it answers."""
        while True:
            (template,) = rng.choices(self.templates, self._weights)
            try:
                words = self._expand(template.node, rng, 0)
            except TooLong:
                continue
            words = [word for word in words if word.text]
            if 0 < len(words) <= MAX_WORDS:
                return [*words[:-1], Word(words[-1].text, COMPLETE)], template.answers

    def _expand(self, node: Node, rng: random.Random, depth: int) -> list[Word]:
        if depth > MAX_DEPTH:
            raise TooLong
        kind, parts = node
        if kind == "sequence":
            return self._sequence(parts, rng, depth)
        if kind == "choice":
            return self._expand(_node(rng.choice(parts)), rng, depth + 1)
        if kind == "maybe":
            return self._expand(_node(parts[0]), rng, depth + 1) if rng.random() < 0.5 else []
        if kind == "needed":
            inner = self._expand(_node(parts[0]), rng, depth + 1)
            inner = [Word(w.text, OPEN if w.after == COMPLETE else w.after) for w in inner]
            return [*inner[:-1], Word(inner[-1].text, NEEDED)]
        assert kind == "name", kind
        return self._expand(rng.choice(self.entries[str(parts[0])]), rng, depth + 1)

    def _sequence(self, parts: tuple[Node | str, ...], rng: random.Random, depth: int) -> list[Word]:
        """The words; a mark before the first one is a nameless word, for the words before this sequence."""
        words: list[Word] = []
        for part in parts:
            if part in ("/", "~"):
                found = [Word("", COMPLETE if part == "/" else SILENT)]
            elif isinstance(part, str):
                found = [Word(part, OPEN)]
            else:
                found = self._expand(part, rng, depth + 1)
            for word in found:
                if words and word.text in ("", "'s"):
                    words[-1] = Word(words[-1].text + word.text, word.after)
                else:
                    words.append(word)
        return words


def parse(text: str) -> Node:
    """A phrase in the notation of this module."""
    tokens = _TOKEN.findall(text)
    node, rest = _alternatives(tokens, 0)
    assert rest == len(tokens), f"unbalanced brackets: {text}"
    return node


_CLOSING = {"(": ")", "[": "]", "<": ">"}


def _alternatives(tokens: list[str], at: int) -> tuple[Node, int]:
    found: list[Node] = []
    parts: list[Node | str] = []
    while at < len(tokens) and tokens[at] not in (")", "]", ">"):
        mark = tokens[at]
        at += 1
        if mark == "|":
            found.append(("sequence", tuple(parts)))
            parts = []
        elif mark == "{":
            parts.append(("name", (tokens[at],)))
            assert tokens[at + 1] == "}", tokens
            at += 2
        elif mark in _CLOSING:
            inner, at = _alternatives(tokens, at)
            assert tokens[at] == _CLOSING[mark], f"{mark} is not closed: {' '.join(tokens)}"
            at += 1
            parts.append(inner if mark == "(" else ("maybe" if mark == "[" else "needed", (inner,)))
        else:
            parts.append(mark)
    found.append(("sequence", tuple(parts)))
    return (found[0] if len(found) == 1 else ("choice", tuple(found))), at


def words_of(node: Node) -> list[str]:
    """The words of a phrase without choices."""
    return [part for part in node[1] if isinstance(part, str)]


def _node(part: Node | str) -> Node:
    assert not isinstance(part, str)
    return part


@cache
def _lines(file: Path) -> tuple[str, ...]:
    return tuple(line for line in file.read_text("utf-8").splitlines() if line and not line.startswith("#"))


def entries(file: Path) -> dict[str, list[str]]:
    """The alternatives of each name of a file."""
    found = {}
    for line in _lines(file):
        name, _, alternatives = line.partition(": ")
        found[name] = _split(alternatives)
    return found


def _split(text: str) -> list[str]:
    """At the | outside of every bracket."""
    found, depth = [""], 0
    for character in text:
        depth += (character in "([<") - (character in ")]>")
        if character == "|" and not depth:
            found.append("")
        else:
            found[-1] += character
    return [part.strip() for part in found]


def _templates(file: Path) -> Iterator[Template]:
    groups: list[tuple[float, str, list[str]]] = []
    for line in _lines(file):
        header = re.fullmatch(r"\[(\d+)\] [\w ]+?(?: => (\w+))?", line)
        if header:
            groups.append((float(header[1]), header[2] or "", []))
        else:
            groups[-1][2].append(line)
    for weight, answers, lines in groups:
        for line in lines:
            yield Template(parse(line), weight / len(lines), answers)
