"""`lollms personalities`: showing, making, checking and trying out, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from click.testing import CliRunner

from lollms_kernel.cli import main
from lollms_kernel.cli.personalities import filled_in
from lollms_kernel.testing.server_process import free_port


class Done(NamedTuple):
    """What a command has done."""

    returncode: int
    stdout: str
    stderr: str


class Workplace:
    """A folder with a configuration whose binding echoes prompts, where the real command runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.configure()

    def configure(self, **config: Any) -> None:
        folder = self.root / "lollms_configs"
        folder.mkdir(exist_ok=True)
        main = {
            "server": {"port": free_port()},
            "bindings_map": {"echo": "dummy_binding"},
            "defaults": {"ttt_binding": "echo"},
        }
        (folder / "main_config.yaml").write_text(yaml.safe_dump({**main, **config}))

    def lollms(self, *words: str) -> Done:
        """The real command, in this process: starting one for each would take a second each time."""
        result = CliRunner().invoke(main, ["personalities", *words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)


def rows(text: str) -> list[list[str]]:
    """The values of each line."""
    return [line.split("\t") for line in text.splitlines()]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOLLMS_CONFIG_DIR", raising=False)
    return Workplace(tmp_path)


def write(workplace: Workplace, where: str, text: str) -> Path:
    folder = workplace.root / "personal/personalities" / where
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(text)
    return folder


def test_list_says_the_same_as_the_group_alone(workplace: Workplace) -> None:
    alone, listed = workplace.lollms(), workplace.lollms("list")

    assert alone.stdout == listed.stdout
    found = {row[0]: row for row in rows(listed.stdout)}
    assert found["guide/server_tour"][5] == "runs"


def test_show_tells_all_of_one_found_by_its_name(workplace: Workplace) -> None:
    shown = json.loads(workplace.lollms("show", "Reckoner", "--json").stdout)
    text = workplace.lollms("show", "tools/reckoner").stdout

    assert (shown["id"], shown["functions"][0]) == ("tools/reckoner", "calculator.evaluate")
    assert "conditioning:" in text
    assert "calculator_evaluate" in text


@pytest.mark.parametrize("options", [[], ["--script"]])
def test_a_new_one_is_there_at_once_and_nothing_is_wrong_with_it_but_its_script(
    workplace: Workplace, options: list[str]
) -> None:
    done = workplace.lollms("new", "sea/old_pirate", "--name", "Jack: 1st", *options)
    assert done.returncode == 0, done.stderr

    listed = {row[0]: row[1] for row in rows(workplace.lollms().stdout)}
    checked = workplace.lollms("check", "sea/old_pirate")

    assert listed["sea/old_pirate"] == "Jack: 1st"
    assert checked.returncode == (1 if options else 0)
    assert ("allow_scripts" in checked.stdout) == bool(options)
    again = workplace.lollms("new", "sea/old_pirate")
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


@pytest.mark.parametrize("id", ["../out", "/etc/x", "a/../b", "", ".hidden", "a/b/c/d", "x\ny"])
def test_a_new_one_never_leaves_the_folder(workplace: Workplace, id: str) -> None:
    done = workplace.lollms("new", "--", id)

    assert done.returncode == 2
    assert "no id of a personality" in done.stderr


def test_check_explains_every_problem_of_all_of_them(workplace: Workplace) -> None:
    write(workplace, "broken", "name: [")
    write(workplace, "odd", "name: Odd\nicon: ../x.png\nmodel_top_p: 7\nscript_path: /etc/passwd\n")

    done = workplace.lollms("check")

    assert done.returncode == 1
    found = rows(done.stdout)
    assert [row[0] for row in found] == ["broken", "odd", "odd", "odd"]
    text = done.stdout
    for said in (
        "config.yaml, line ",
        "`icon`",
        "`model_top_p` must be a number from 0 to 1",
        "`script_path`",
    ):
        assert said in text
    one = workplace.lollms("check", "broken")
    assert (one.returncode, len(rows(one.stdout))) == (1, 1)


def test_check_takes_any_folder_on_disk(workplace: Workplace) -> None:
    outside = workplace.root / "elsewhere/mine"
    outside.mkdir(parents=True)
    (outside / "SOUL.md").write_text("---\nname: x\ntemperature: 9\n---\nBe.\n")

    wrong = workplace.lollms("check", str(outside))
    none = workplace.lollms("check", str(outside.parent))
    good = workplace.lollms("check", "lollms")

    assert (wrong.returncode, "`model_temperature`" in wrong.stdout) == (1, True)
    assert (none.returncode, "holds no personality" in none.stderr) == (1, True)
    assert (good.returncode, good.stderr.strip()) == (0, "Nothing is wrong.")


def test_test_runs_the_example_prompts(workplace: Workplace) -> None:
    write(
        workplace,
        "one",
        "name: One\nprompts_list: [Hello there, '@<T>@Tell [what::options::a joke,b]', third]\n",
    )

    done = workplace.lollms("test", "one", "--limit", "2")

    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n\n")[:2] == ["> Hello there\nHello there", "> Tell a joke\nTell a joke"]


def test_test_fails_where_a_prompt_gets_no_answer(workplace: Workplace) -> None:
    folder = write(workplace, "one", "name: One\nscript_path: scripts/w.py\n")
    (folder / "scripts").mkdir()
    (folder / "scripts/w.py").write_text(
        "async def run_workflow(p, q, c):\n    raise ValueError('no luck')\n"
    )
    workplace.configure(personalities_config={"one": {"allow_scripts": True}})

    done = workplace.lollms("test", "one", "--prompt", "x")

    assert done.returncode == 1
    assert "no luck" in done.stderr
    assert "1 of 1 prompts got no answer" in done.stderr


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("plain", "plain"),
        ("@<A title>@Tell me [what::multiline] now", "Tell me what now"),
        ("Say [slot one::options::a,b] and [x::number]", "Say a and x"),
    ],
)
def test_templates_are_filled_in(template: str, prompt: str) -> None:
    assert filled_in(template) == prompt
