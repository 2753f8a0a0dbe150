"""The generator of training text: the same for everyone, and right about where turns end."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="module")
def parts(training: Callable[[str], ModuleType]) -> SimpleNamespace:
    names = ("digits", "examples", "grammar", "sets", "verbs")
    return SimpleNamespace(**{name: training(name) for name in names})


@pytest.fixture(scope="module")
def source(parts: SimpleNamespace) -> Any:
    return parts.examples.Examples(seed=5, references=20_000)


def places(parts: SimpleNamespace, phrase: str) -> list[tuple[str, int]]:
    grammar = parts.grammar.Grammar()
    node = parts.grammar.parse(phrase)
    return [(word.text, word.after) for word in grammar._expand(node, random.Random(0), 0)]


def test_marks_say_where_a_turn_may_end(parts: SimpleNamespace) -> None:
    g = parts.grammar

    assert places(parts, "play it / now") == [("play", g.OPEN), ("it", g.COMPLETE), ("now", g.OPEN)]
    assert places(parts, "shopping~list it's") == [
        ("shopping", g.SILENT),
        ("list", g.OPEN),
        ("it's", g.OPEN),
    ]
    assert places(parts, "<if it (rains / today)> stay") == [
        ("if", g.OPEN), ("it", g.OPEN), ("rains", g.OPEN), ("today", g.NEEDED), ("stay", g.OPEN)
    ]  # fmt: skip


def test_every_name_of_every_phrase_is_known(parts: SimpleNamespace) -> None:
    grammar = parts.grammar.Grammar()

    def names(node: Any) -> set[str]:
        kind, parts = node
        if kind == "name":
            return {parts[0]}
        return set().union(*(names(part) for part in parts if not isinstance(part, str)))

    nodes = [template.node for template in grammar.templates] + [
        n for e in grammar.entries.values() for n in e
    ]
    assert set().union(*map(names, nodes)) <= grammar.entries.keys()
    assert len(grammar.templates) > 450


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("buy bought bought", ("buy", "buys", "bought", "bought", "buying")),
        ("stop", ("stop", "stops", "stopped", "stopped", "stopping")),
        ("carry", ("carry", "carries", "carried", "carried", "carrying")),
        ("look for", ("look for", "looks for", "looked for", "looked for", "looking for")),
        ("fix", ("fix", "fixes", "fixed", "fixed", "fixing")),
    ],
)
def test_verbs_have_their_forms(parts: SimpleNamespace, verb: str, forms: tuple[str, ...]) -> None:
    assert parts.verbs._forms(verb) == forms


def test_the_same_seed_makes_the_same_examples(parts: SimpleNamespace, source: Any) -> None:
    again = parts.examples.Examples(seed=5, references=20_000)
    other = parts.examples.Examples(seed=6, references=1_000)
    one, two, three = (list(islice(each.stream(), 500)) for each in (source, again, other))

    assert one == two
    assert one != three


def test_half_of_the_examples_are_complete_and_nothing_is_empty(parts: SimpleNamespace) -> None:
    examples = list(islice(parts.examples.Examples(seed=7, references=1_000).stream(), 4000))

    assert 0.4 < sum(example.complete for example in examples) / len(examples) < 0.6
    assert all(example.text.strip() for example in examples)


def test_a_number_breaks_off_before_its_last_digit(parts: SimpleNamespace, source: Any) -> None:
    rng = random.Random(3)
    for _ in range(200):
        words, expected = parts.digits.phone(rng, source.grammar)
        ends = [n for n, word in enumerate(words, 1) if word.after == parts.grammar.COMPLETE]
        assert ends == [len(words)]
        assert expected.name in ("PHONE", "ANYTHING")


def test_the_sets_are_large_enough_and_of_both_kinds(parts: SimpleNamespace) -> None:
    sets = parts.sets
    for language in sets.LANGUAGES:
        turns = sets.read_set(sets.EVALUATION / f"{language}.txt")
        assert len(turns) >= (400 if language == "en" else 60)
        assert 0.35 < sum(turn.complete for turn in turns) / len(turns) < 0.65
        assert len({turn.text for turn in turns}) == len(turns)


def test_nothing_was_tuned_on_the_frozen_set(parts: SimpleNamespace) -> None:
    sets = parts.sets
    frozen = {turn.text for turn in sets.read_set(sets.EVALUATION / "en.txt")}

    assert frozen.isdisjoint(turn.text for turn in sets.read_set(sets.DEVELOPMENT / "en.txt"))
