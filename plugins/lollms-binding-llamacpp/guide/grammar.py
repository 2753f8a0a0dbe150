"""The phrase notation of `phrases/*.yaml`: (a|b) chooses, [x] is optional, {NAME} inserts a macro."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_MACRO = re.compile(r"\{([A-Za-z]+)\}")
_SPACES = re.compile(r" {2,}")
_SPACE_BEFORE_MARK = re.compile(r" +([,.?!:;])(?=\s|$)")


@dataclass(frozen=True)
class Choice:
    """One of several sequences, or nothing at all when `optional`."""

    branches: tuple[Sequence, ...]
    optional: bool = False

    @property
    def size(self) -> int:
        """How many texts this choice can produce."""
        return sum(branch.size for branch in self.branches) + int(self.optional)

    def sample(self, rng: random.Random, macros: Mapping[str, Choice]) -> str:
        """Return one of the texts at random."""
        if self.optional and rng.random() < 0.55:
            return ""
        return rng.choice(self.branches).sample(rng, macros)


@dataclass(frozen=True)
class Sequence:
    """Literals and choices, one after the other."""

    parts: tuple[str | Choice, ...]

    @property
    def size(self) -> int:
        """How many texts this sequence can produce, macros counted once."""
        return math.prod(part.size for part in self.parts if isinstance(part, Choice))

    def sample(self, rng: random.Random, macros: Mapping[str, Choice]) -> str:
        """Return one text at random, macros filled in; unknown macros stay as they are."""
        return "".join(
            _fill(part, rng, macros) if isinstance(part, str) else part.sample(rng, macros)
            for part in self.parts
        )


def _fill(text: str, rng: random.Random, macros: Mapping[str, Choice]) -> str:
    def value(match: re.Match[str]) -> str:
        macro = macros.get(match[1])
        return macro.sample(rng, macros) if macro else match[0]

    return _MACRO.sub(value, text) if "{" in text else text


@dataclass
class _Reader:
    text: str
    position: int = 0
    closing: list[str] = field(default_factory=list)

    def sequence(self) -> Sequence:
        parts: list[str | Choice] = []
        literal = ""
        while self.position < len(self.text):
            char = self.text[self.position]
            if self.closing and char in ("|", self.closing[-1]):
                break
            self.position += 1
            if char in "([":
                parts.extend([literal] if literal else [])
                literal = ""
                parts.append(self.choice(")" if char == "(" else "]"))
            else:
                literal += char
        parts.extend([literal] if literal else [])
        return Sequence(tuple(parts))

    def choice(self, closing: str) -> Choice:
        self.closing.append(closing)
        branches = [self.sequence()]
        while self.position < len(self.text) and self.text[self.position] == "|":
            self.position += 1
            branches.append(self.sequence())
        if self.position >= len(self.text):
            raise ValueError(f"no closing {closing!r} in phrase {self.text!r}")
        self.position += 1
        self.closing.pop()
        return Choice(tuple(branches), optional=closing == "]")


def parse(line: str) -> Sequence:
    """Return the grammar of one line; raises ValueError when a bracket stays open."""
    return _Reader(line).sequence()


def tidy(text: str) -> str:
    """Return the text without doubled blanks and without blanks before punctuation."""
    return _SPACE_BEFORE_MARK.sub(r"\1", _SPACES.sub(" ", text)).strip()


@dataclass(frozen=True)
class Phrases:
    """A list of lines, drawn with a weight that grows slowly with the variety of the line."""

    lines: tuple[Sequence, ...]
    cumulative: tuple[float, ...]

    @classmethod
    def of(cls, block: str) -> Phrases:
        """Read a block of lines, one grammar each."""
        lines = tuple(parse(line) for line in block.splitlines() if line.strip())
        total, cumulative = 0.0, []
        for line in lines:
            total += min(line.size, 150) ** 0.5
            cumulative.append(total)
        return cls(lines, tuple(cumulative))

    def sample(self, rng: random.Random, macros: Mapping[str, Choice]) -> str:
        """Return one phrase at random."""
        return tidy(rng.choices(self.lines, cum_weights=self.cumulative)[0].sample(rng, macros))
