"""`lollms plugins`, `bindings`, `models` and `personalities`: tables for people, lines and JSON for programs."""

from __future__ import annotations

import json

from .commands import Workplace, install


def rows(text: str) -> list[list[str]]:
    """Tab-separated lines."""
    return [line.split("\t") for line in text.splitlines()]


def test_plugins_lists_a_broken_one_with_error_and_cure(workplace: Workplace) -> None:
    done = workplace.lollms("plugins", env=install(workplace.root, "shattered", "import no_such_module"))

    listed = {row[0]: row for row in rows(done.stdout)}
    assert done.returncode == 0
    assert listed["lollms-kernel"][2] == "loaded"
    name, version, state, _, error, hint = listed["shattered"]
    assert (name, version, state) == ("shattered", "1.0", "broken")
    assert "no_such_module" in error
    assert "pip install no_such_module" in hint


def test_plugins_as_json_names_the_hooks(workplace: Workplace) -> None:
    listed = json.loads(workplace.lollms("plugins", "--json").stdout)

    (kernel,) = [plugin for plugin in listed if plugin["name"] == "lollms-kernel"]
    assert "register_bindings" in kernel["hooks"]


def test_bindings_lists_types_and_instances_also_failed_ones(workplace: Workplace) -> None:
    workplace.configure({"good": {}, "bad": {"tempo": 1}, "strange": {"type": "no_such_binding"}})

    listed = rows(workplace.lollms("bindings").stdout)

    assert ["type", "dummy_binding"] in [row[:2] for row in listed]
    states = {row[1]: row[3] for row in listed if row[0] == "instance"}
    assert states == {"good": "configured", "bad": "failed", "strange": "failed"}
    (bad,) = [row for row in listed if row[1] == "bad"]
    assert "tempo" in bad[5]


def test_bindings_as_json_holds_both_lists(workplace: Workplace) -> None:
    listed = json.loads(workplace.lollms("bindings", "--json").stdout)

    (dummy,) = [kind for kind in listed["types"] if kind["name"] == "dummy_binding"]
    assert (dummy["state"], dummy["display_name"]) == ("available", "Dummy")
    assert [instance["name"] for instance in listed["instances"]] == ["echo"]


def test_models_lists_those_of_every_instance(workplace: Workplace) -> None:
    workplace.configure({"one": {"model": "m-1"}, "two": {"model": "m-2", "isolation": "process"}})

    listed = rows(workplace.lollms("models").stdout)

    assert [row[:2] for row in listed] == [["one", "m-1"], ["two", "m-2"]]


def test_models_of_one_instance(workplace: Workplace) -> None:
    workplace.configure({"one": {"model": "m-1"}, "two": {"model": "m-2"}})

    (model,) = json.loads(workplace.lollms("models", "two", "--json").stdout)

    assert (model["instance"], model["name"], model["context_size"]) == ("two", "m-2", 4096)


def test_models_of_an_unknown_instance_is_an_error(workplace: Workplace) -> None:
    done = workplace.lollms("models", "nobody")

    assert (done.returncode, done.stdout) == (1, "")
    assert "lollms: Binding instance 'nobody' not found. Configured: echo." in done.stderr


def test_models_of_the_other_instances_are_listed_beside_a_broken_one(workplace: Workplace) -> None:
    workplace.configure({"bad": {"tempo": 1}, "good": {"model": "m-1"}})

    done = workplace.lollms("models")

    assert [row[:2] for row in rows(done.stdout)] == [["good", "m-1"]]
    assert done.returncode == 0
    assert "lollms: Binding instance 'bad' not available" in done.stderr


def test_personalities_lists_the_enabled_ones(workplace: Workplace) -> None:
    assert ["lollms"] in [row[:1] for row in rows(workplace.lollms("personalities").stdout)]

    ours = ("lollms", "server_tour", "reckoner", "plain_words")
    workplace.configure(config={"personalities_config": {name: {"enabled": False} for name in ours}})
    done = workplace.lollms("personalities")

    assert (done.returncode, done.stdout) == (0, "")
    assert "There is no personality" in done.stderr


def test_a_terminal_gets_a_table(workplace: Workplace) -> None:
    with workplace.terminal("personalities") as terminal:
        seen = terminal.expect("A helpful and honest")
        terminal.wait()

    assert "description" in seen
    assert "─" in seen
