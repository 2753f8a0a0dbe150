"""The generator of training text: the same for everyone, and right about where turns end."""

from __future__ import annotations

import random
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[4] / "plugins" / "lollms-transport-ws-chat"


@pytest.fixture(scope="module")
def training() -> Any:
    sys.path.insert(0, str(PLUGIN))
    try:
        from turn_training import digits, examples, grammar, sets, verbs
    finally:
        sys.path.remove(str(PLUGIN))
    return SimpleNamespace(digits=digits, examples=examples, grammar=grammar, sets=sets, verbs=verbs)


@pytest.fixture(scope="module")
def source(training: Any) -> Any:
    return training.examples.Examples(seed=5, references=20_000)


def places(training: Any, phrase: str) -> list[tuple[str, int]]:
    grammar = training.grammar.Grammar()
    node = training.grammar.parse(phrase)
    return [(word.text, word.after) for word in grammar._expand(node, random.Random(0), 0)]


def test_marks_say_where_a_turn_may_end(training: Any) -> None:
    g = training.grammar

    assert places(training, "play it / now") == [("play", g.OPEN), ("it", g.COMPLETE), ("now", g.OPEN)]
    assert places(training, "shopping~list it's") == [
        ("shopping", g.SILENT),
        ("list", g.OPEN),
        ("it's", g.OPEN),
    ]
    assert places(training, "<if it (rains / today)> stay") == [
        ("if", g.OPEN), ("it", g.OPEN), ("rains", g.OPEN), ("today", g.NEEDED), ("stay", g.OPEN)
    ]  # fmt: skip


def test_every_name_of_every_phrase_is_known(training: Any) -> None:
    grammar = training.grammar.Grammar()

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
def test_verbs_have_their_forms(training: Any, verb: str, forms: tuple[str, ...]) -> None:
    assert training.verbs._forms(verb) == forms


def test_the_same_seed_makes_the_same_examples(training: Any, source: Any) -> None:
    again = training.examples.Examples(seed=5, references=20_000)
    other = training.examples.Examples(seed=6, references=1_000)
    one, two, three = (list(islice(each.stream(), 500)) for each in (source, again, other))

    assert one == two
    assert one != three


def test_half_of_the_examples_are_complete_and_nothing_is_empty(training: Any) -> None:
    examples = list(islice(training.examples.Examples(seed=7, references=1_000).stream(), 4000))

    assert 0.4 < sum(example.complete for example in examples) / len(examples) < 0.6
    assert all(example.text.strip() for example in examples)


def test_a_number_breaks_off_before_its_last_digit(training: Any, source: Any) -> None:
    rng = random.Random(3)
    for _ in range(200):
        words, expected = training.digits.phone(rng, source.grammar)
        ends = [n for n, word in enumerate(words, 1) if word.after == training.grammar.COMPLETE]
        assert ends == [len(words)]
        assert expected.name in ("PHONE", "ANYTHING")


def test_the_sets_are_large_enough_and_of_both_kinds(training: Any) -> None:
    sets = training.sets
    for language in sets.LANGUAGES:
        turns = sets.read_set(sets.EVALUATION / f"{language}.txt")
        assert len(turns) >= (400 if language == "en" else 60)
        assert 0.35 < sum(turn.complete for turn in turns) / len(turns) < 0.65
        assert len({turn.text for turn in turns}) == len(turns)


def test_nothing_was_tuned_on_the_frozen_set(training: Any) -> None:
    sets = training.sets
    frozen = {turn.text for turn in sets.read_set(sets.EVALUATION / "en.txt")}

    assert frozen.isdisjoint(turn.text for turn in sets.read_set(sets.DEVELOPMENT / "en.txt"))
