"""From the files of the published formats to cards, with every quirk that they are known to have."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import lollms_personality_loader as plugin
from lollms_kernel.config.schema import MainConfig
from lollms_kernel.contracts import PersonalityCard, PersonalitySource
from lollms_kernel.errors import ConfigError
from lollms_kernel.types import GenerateRequest, Message
from lollms_personality_loader.card import build_card
from lollms_personality_loader.folders import PersonalityFolder
from lollms_personality_loader.formats import MAX_BYTES, read_file
from lollms_personality_loader.library import Library, Root

FULL = """
name: Pirate
author: ParisNeo
version: 1.10
category: [Fun, Sea]
language: English
personality_description: Speaks like a pirate.
personality_conditioning: |
  !@>instructions:
  Answer like a pirate: arr.
welcome_message: Ahoy
disclaimer: null
user_name: mate
user_message_prefix: User
ai_message_prefix: Pirate
link_text: '\\n'
anti_prompts: ['!@>', '', '<|end|>']
prompts_list: ['@<Tell>@Tell a [story::multiline]']
tags: [sea, fun]
dependencies: [lilypond]
creation_date: 2023-13-45
commands: [{name: x, value: y}]
model_temperature: 0.6
model_n_predicts: 8192
model_top_k: 50
model_top_p: 0.9
model_repeat_penalty: 1.0
model_repeat_last_n: 40
"""


OWN = ("guide/server_tour", "tools/reckoner", "writing/plain_words")


def write(root: Path, where: str, text: str, file: str = "config.yaml") -> Path:
    folder = root / where
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(textwrap.dedent(text))
    return folder


def library(root: Path, **config: object) -> Library:
    found = Library(msgspec.convert(config, MainConfig), [Root(root)])
    found.look()
    return found


def load(root: Path, **config: object) -> dict[str, PersonalityCard]:
    return {id: personality.card for id, personality in library(root, **config).personalities().items()}


def load_one(root: Path, text: str, file: str = "config.yaml") -> PersonalityCard:
    write(root, "one", text, file)
    return load(root)["one"]


def test_given_a_full_config_when_loaded_then_the_card_has_all_of_it(tmp_path: Path) -> None:
    write(tmp_path, "fun/pirate", FULL)

    assert load(tmp_path) == {
        "fun/pirate": PersonalityCard(
            id="fun/pirate",
            folder="pirate",
            name="Pirate",
            author="ParisNeo",
            version="1.10",
            description="Speaks like a pirate.",
            category="fun",
            language="english",
            tags=("sea", "fun"),
            conditioning="!@>instructions:\nAnswer like a pirate: arr.\n",
            welcome_message="Ahoy",
            disclaimer="",
            user_name="mate",
            user_message_prefix="User",
            ai_message_prefix="Pirate",
            link_text="\n",
            anti_prompts=("!@>", "<|end|>"),
            prompts_list=("@<Tell>@Tell a [story::multiline]",),
            parameters={
                "temperature": 0.6,
                "max_tokens": 8192,
                "top_k": 50,
                "top_p": 0.9,
                "repeat_penalty": 1.0,
                "repeat_last_n": 40,
            },
        )
    }


def test_given_only_a_conditioning_when_loaded_then_the_rest_has_defaults(tmp_path: Path) -> None:
    card = load_one(tmp_path, "personality_conditioning: Be brief.\n")

    assert (card.name, card.author, card.version, card.description) == ("one", "Unknown", "1.0", "")
    assert (card.category, card.language, card.icon, card.is_scripted) == (
        "generic",
        "english",
        "default.png",
        False,
    )
    assert card.parameters == {}


def test_given_nulls_when_loaded_then_they_are_the_defaults(tmp_path: Path) -> None:
    card = load_one(
        tmp_path,
        """
        name: Nobody
        author: null
        version: ~
        category:
        language: null
        personality_conditioning: null
        link_text: null
        model_temperature: null
        anti_prompts: null
        """,
    )

    assert (card.author, card.version, card.category, card.conditioning) == ("Unknown", "1.0", "generic", "")
    assert (card.link_text, card.parameters, card.anti_prompts) == ("\n", {}, ())


def test_given_lists_instead_of_texts_when_loaded_then_they_are_understood(tmp_path: Path) -> None:
    card = load_one(
        tmp_path,
        """
        name: Lists
        category: [Art, Music]
        personality_conditioning: [Be kind., Be brief.]
        anti_prompts: "!@>"
        """,
    )

    assert (card.category, card.conditioning, card.anti_prompts) == ("Art", "Be kind.\nBe brief.", ("!@>",))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("en_US", "english"),
        ("fr", "french"),
        ("Japanese", "japanese"),
        ("whatever the user speaks", "english"),
    ],
)
def test_given_a_spelling_of_a_language_when_loaded_then_it_is_one_word(
    tmp_path: Path, written: str, read: str
) -> None:
    assert load_one(tmp_path, f"name: x\nlanguage: {written}\n").language == read


@pytest.mark.parametrize(
    "line",
    [
        "model_temperature: 2.5",
        "model_temperature: .nan",
        "model_temperature: warm",
        "model_n_predicts: 0",
        "model_n_predicts: 1.5",
        "model_n_predicts: " + "9" * 5000,
        "model_top_k: -1",
        "model_top_p: 1.01",
        "model_repeat_penalty: 0",
        "model_repeat_last_n: [40]",
    ],
)
def test_given_a_parameter_out_of_range_when_loaded_then_it_is_left_out_and_the_log_names_file_and_key(
    tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    card = load_one(tmp_path, f"name: x\n{line}\n")

    assert card.parameters == {}
    assert str(tmp_path / "one/config.yaml") in caplog.text
    assert f"`{line.partition(':')[0]}`" in caplog.text


def test_given_a_request_with_parameters_when_conditioned_then_its_own_win(tmp_path: Path) -> None:
    write(
        tmp_path,
        "one",
        "name: x\npersonality_conditioning: Be brief.\nmodel_temperature: 0.6\nmodel_top_k: 5\n",
    )
    (personality,) = library(tmp_path).personalities().values()

    request = personality.condition(
        GenerateRequest(id="1", messages=(Message("user", "hi"),), parameters={"temperature": 0})
    )

    assert (request.system, request.parameters) == ("Be brief.", {"temperature": 0, "top_k": 5})


SOUL = """\
---
name: Poet
author: Someone
version: 2.0
category: creative
temperature: 0.7
description: Writes verse.
---

# You are a poet

- rhyme: always
---
No prose.
"""


def test_given_a_soul_when_loaded_then_the_body_is_the_conditioning(tmp_path: Path) -> None:
    write(tmp_path, "creative/poet", SOUL, "SOUL.md")

    card = load(tmp_path)["creative/poet"]

    assert (card.name, card.author, card.version, card.description) == (
        "Poet",
        "Someone",
        "2.0",
        "Writes verse.",
    )
    assert card.parameters == {"temperature": 0.7}
    assert card.conditioning == "# You are a poet\n\n- rhyme: always\n---\nNo prose."


@pytest.mark.parametrize(
    ("text", "conditioning"),
    [
        ("You are a poet.\n", "You are a poet."),
        ("---\nname: Empty\n---", ""),
        ("---\n---\nBody", "Body"),
        ("\ufeff---\r\nname: Dos\r\n---\r\nBe\r\nbrief.\r\n", "Be\nbrief."),
    ],
)
def test_given_an_unusual_soul_when_loaded_then_it_is_understood(
    tmp_path: Path, text: str, conditioning: str
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/SOUL.md").write_bytes(text.encode())

    assert load(tmp_path)["one"].conditioning == conditioning


@pytest.mark.parametrize(
    ("file", "data", "said"),
    [
        ("config.yaml", b"name: x\npersonality_conditioning: [\n", "config.yaml, line "),
        ("config.yaml", b"name: x\nauthor: a: b\n", "config.yaml, line 2: "),
        ("config.yaml", b"name: x\nauthor: \xff\n", "config.yaml, line 2: not UTF-8"),
        ("config.yaml", b"name: x\nauthor: a\0b\n", "config.yaml, line "),
        ("config.yaml", b"", "config.yaml, line 1: expected lines"),
        ("config.yaml", b"- a\n- b\n", "config.yaml, line 1: expected lines"),
        ("config.yaml", b"a: 1\n", "neither `name` nor `personality_conditioning`"),
        ("config.yaml", b"name: x\n---\nname: y\n", "line 3: a second document"),
        ("config.yaml", b"name: x\n? [a]\n: b\n", "line 2: a key must be text"),
        ("config.yaml", b"a: &a {name: x}\n<<: *a\n", "line 2: merge keys are not read"),
        ("config.yaml", b"name: *nowhere\n", "line 1: no anchor 'nowhere'"),
        ("config.yaml", b"name: x\na: " + b"[" * 200_000, "more than 32 levels"),
        ("config.yaml", b"name: x\na: " + b"- " * 200_000, "config.yaml, line 2"),
        ("config.yaml", b"name: " + b"x" * MAX_BYTES, "larger than"),
        ("SOUL.md", b"---\nname: x\nnever closed\n", "SOUL.md, line 1: the front matter has no end"),
        ("SOUL.md", b"---\nname: x\nauthor: [\n---\nbody\n", "SOUL.md, line "),
    ],
)
def test_given_a_broken_file_when_loaded_then_one_warning_names_place_and_cure_and_the_others_load(
    tmp_path: Path, file: str, data: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "good", FULL)
    write(tmp_path, "bad", "")
    (tmp_path / "bad/config.yaml").unlink()
    (tmp_path / "bad" / file).write_bytes(data)

    assert list(load(tmp_path)) == ["good"]
    (record,) = caplog.records
    assert record.getMessage().startswith("Personality 'bad' is left out. ")
    assert said in record.getMessage()


def test_given_a_pipe_instead_of_a_file_when_loaded_then_nothing_waits_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe/config.yaml")

    assert load(tmp_path) == {}
    assert "not a regular file" in caplog.text


def test_given_aliases_of_aliases_when_loaded_then_they_stay_as_small_as_the_file(tmp_path: Path) -> None:
    bomb = ["a0: &a0 [lol, lol]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    bomb += [
        "personality_conditioning: *a29",
        "tags: *a29",
        "name: Bomb",
        "prompts_list: &self [*self, hello]",
    ]

    card = load_one(tmp_path, "\n".join(bomb) + "\n")

    assert (card.name, card.conditioning, card.tags, card.prompts_list) == ("Bomb", "", (), ("hello",))


class TestPicture:
    def test_given_no_icon_key_when_loaded_then_it_is_the_logo(self, tmp_path: Path) -> None:
        write(tmp_path, "one/assets", "", "logo.jpg")

        assert load_one(tmp_path, "name: x\n").icon == "logo.jpg"

    def test_given_an_icon_key_when_loaded_then_it_is_that_file(self, tmp_path: Path) -> None:
        write(tmp_path, "one/assets", "", "logo.png")
        write(tmp_path, "one/assets", "", "me.svg")

        assert load_one(tmp_path, "name: x\nicon: me.svg\n").icon == "me.svg"

    @pytest.mark.parametrize(
        "icon", ["../config.yaml", "/etc/hostname", "missing.png", '"a\\0b"', "x" * 5000, "secret", "."]
    )
    def test_given_an_icon_outside_the_assets_when_loaded_then_it_is_left_out(
        self, tmp_path: Path, icon: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "secret").write_text("")
        write(tmp_path, "one/assets", "", "logo.png")
        (tmp_path / "one/assets/secret").symlink_to(tmp_path / "secret")

        assert load_one(tmp_path, f"name: x\nicon: {icon}\n").icon == "logo.png"
        assert "`icon`" in caplog.text


class TestScripted:
    def test_given_a_script_when_loaded_then_it_is_marked_and_not_run(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(tmp_path, "one/scripts", "raise SystemExit('it ran')", "workflow.py")

        card = load_one(
            tmp_path, "name: x\nscript_path: scripts/workflow.py\npersonality_conditioning: Hi.\n"
        )

        assert (card.is_scripted, card.script_enabled, card.conditioning) == (True, False, "Hi.")
        assert card.problems == (
            "The script of 'one' does not run: it works through its conditioning. "
            "Read it, then set personalities_config.one.allow_scripts to true.",
        )
        assert not caplog.records


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@example(b"!!python/object/apply:os.system ['true']")
@example(b"a: !!int 1:1:1:1\n<<: *a\n")
def test_given_any_bytes_when_read_then_it_is_a_card_that_json_can_carry_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    root = tmp_path_factory.mktemp("any")
    for name, head in (("config.yaml", b"name: x\n"), ("SOUL.md", b"---\nname: x\n")):
        (root / name).write_bytes(head + data)
        try:
            fields = read_file(root / name)
        except ConfigError as error:
            assert error.hint
        else:
            msgspec.json.encode(build_card(PersonalityFolder("any", root, root / name), fields))


class TestHook:
    def registered(self, config: MainConfig) -> list[str]:
        found: list[PersonalitySource] = []
        plugin.register_personalities(found.append, config)
        (source,) = found
        return [id for id in source.personalities() if id not in OWN]

    def config(self, root: Path, **overrides: object) -> MainConfig:
        paths = {"personalities_folder": str(root), "example_personalities_folder": f"{root}-examples"}
        raw = {"paths": paths, "personalities_config": overrides}
        return msgspec.convert(raw, MainConfig)

    def test_given_a_folder_when_the_hook_is_called_then_its_personalities_are_registered(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path, "fun/pirate", FULL)
        write(tmp_path, "plain", "name: Plain\n")

        assert self.registered(self.config(tmp_path)) == ["fun/pirate", "plain"]

    def test_given_an_example_of_the_same_id_when_the_hook_is_called_then_the_users_comes_last_and_so_wins(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path / "root", "pirate", FULL)
        write(tmp_path / "root-examples", "pirate", FULL)
        write(tmp_path / "root-examples", "teacher", "name: Teacher\n")

        assert self.registered(self.config(tmp_path / "root")) == ["pirate", "teacher"]

    def test_given_disabled_ones_when_the_hook_is_called_then_they_are_not_even_read(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(tmp_path, "fun/pirate", FULL)
        write(tmp_path, "sea/pirate", "name: [")
        write(tmp_path, "sea/parrot", FULL)
        write(tmp_path, "fun/parrot", FULL)
        overrides = {
            "pirate": {"enabled": False},
            "sea/parrot": {"enabled": False},
            "parrot": {"enabled": True},
        }

        assert self.registered(self.config(tmp_path, **overrides)) == ["fun/parrot"]
        assert not caplog.records

    def test_given_no_folder_when_the_hook_is_called_then_nothing_is_registered(self, tmp_path: Path) -> None:
        assert self.registered(self.config(tmp_path / "missing")) == []
