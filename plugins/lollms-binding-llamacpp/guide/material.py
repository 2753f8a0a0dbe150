"""Loads topics and phrases: everything the generator knows, in one frozen value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .grammar import Choice, Phrases, parse

GUIDE = Path(__file__).parent
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Topic:
    """One thing the model can answer, with its canonical answer."""

    id: str
    kind: str
    answer: str
    thought: str


@dataclass(frozen=True)
class Material:
    """Topics by id, phrases by topic and category, frames, system prompts and the skills' lists."""

    topics: Mapping[str, Topic]
    phrases: Mapping[str, Mapping[str, Phrases]]
    macros: Mapping[str, Choice]
    frames: Mapping[str, Phrases]
    systems: Mapping[str, Phrases]
    skills: Mapping[str, Any]
    reserved: frozenset[tuple[str, ...]]
    """The words of the questions of dev.yaml, which must not be trained on."""

    def answer(self, topic: str) -> str:
        """Return the canonical answer of a topic."""
        return self.topics[topic].answer


def words(text: str) -> tuple[str, ...]:
    """Return the lower-case words of a text, to compare questions."""
    return tuple(_WORD.findall(text.lower()))


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _topics() -> dict[str, Topic]:
    entries = {entry["id"]: entry for entry in _yaml(GUIDE / "topics.yaml")}
    topics = {}
    for name, entry in entries.items():
        source = entries[entry["same_as"]] if "same_as" in entry else entry
        thought = entry.get("thought") or f"The user asks about {entry['about']}. I know this topic."
        topics[name] = Topic(name, entry["kind"], source["answer"], thought)
    return topics


@cache
def load() -> Material:
    """Return the material of `topics.yaml` and `phrases/`."""
    folder = GUIDE / "phrases"
    blocks: dict[str, dict[str, str]] = {}
    macros = {name: Choice((parse(text),)) for name, text in _yaml(folder / "macros.yaml").items()}
    others = [folder / name for name in ("social.yaml", "out_of_scope.yaml", "foreign.yaml")]
    for path in sorted([*folder.glob("server_*.yaml"), *others]):
        for topic, categories in _yaml(path).items():
            if topic == "macros":
                macros |= {name: Choice((parse(text),)) for name, text in categories.items()}
                continue
            target = blocks.setdefault(topic, {})
            for category, block in categories.items():
                target[category] = target.get(category, "") + block
    skills = {
        name: Phrases.of(value) if isinstance(value, str) else value
        for name, value in _yaml(folder / "skills.yaml").items()
    }
    return Material(
        topics=_topics(),
        phrases={
            topic: {category: Phrases.of(block) for category, block in categories.items()}
            for topic, categories in blocks.items()
        },
        macros=macros,
        frames={name: Phrases.of(block) for name, block in _yaml(folder / "frames.yaml").items()},
        systems={name: Phrases.of(block) for name, block in _yaml(folder / "systems.yaml").items()},
        skills=skills,
        reserved=frozenset(words(entry["question"]) for entry in _yaml(GUIDE / "questions" / "dev.yaml")),
    )
