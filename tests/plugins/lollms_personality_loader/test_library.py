"""Personalities as they are on disk now: changes, translations, a zoo with every quirk, and what is kept of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lollms_kernel.config.schema import MainConfig
from lollms_kernel.types import GenerateRequest, Message
from lollms_personality_loader import cache
from lollms_personality_loader import library as module
from lollms_personality_loader.cache import cache_file, read_cache, write_cache
from lollms_personality_loader.library import Library, Root

PIRATE = "name: Pirate\npersonality_conditioning: Arr.\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def write(root: Path, where: str, text: str = PIRATE, file: str = "config.yaml") -> Path:
    folder = root / where
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text)
    return folder


def library(*roots: Path, **config: Any) -> Library:
    found = Library(msgspec.convert(config, MainConfig), [Root(root) for root in roots], interval=0.02)
    found.look()
    return found


def names(found: Library) -> dict[str, str]:
    return {id: personality.card.name for id, personality in found.personalities().items()}


class TestChanges:
    def test_given_new_changed_and_removed_folders_when_looked_at_again_then_they_count(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path, "stays")
        write(tmp_path, "goes")
        write(tmp_path, "changes")
        found = library(tmp_path)
        before = found.personalities()

        shutil.rmtree(tmp_path / "goes")
        write(tmp_path, "new/one")
        write(tmp_path, "changes", "name: Another\n")
        found.look()

        assert names(found) == {"changes": "Another", "new/one": "Pirate", "stays": "Pirate"}
        assert found.personalities()["stays"] is before["stays"]

    def test_given_nothing_new_when_looked_at_again_then_the_mapping_is_the_same_object(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path, "one")
        found = library(tmp_path)
        before = found.personalities()

        found.look()

        assert found.personalities() is before

    def test_given_a_change_of_what_belongs_to_it_when_looked_at_again_then_it_counts(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path, "one")
        found = library(tmp_path)

        write(tmp_path, "one/assets", "", "logo.png")
        write(tmp_path, "one/scripts", "async def run_workflow(p, q, c): ...", "workflow.py")
        write(tmp_path, "one/languages", "name: Pirata\n", "spanish.yaml")
        found.look()

        card = found.personalities()["one"].card
        assert (card.icon, card.is_scripted, card.languages) == ("logo.png", True, ("spanish",))

    def test_given_a_broken_file_when_it_is_mended_then_it_is_there_and_the_warning_came_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(tmp_path, "one", "name: [")
        found = library(tmp_path)
        found.look()
        found.look()
        assert names(found) == {}
        assert len(caplog.records) == 1

        write(tmp_path, "one")
        found.look()

        assert names(found) == {"one": "Pirate"}

    async def test_given_an_open_library_when_a_folder_comes_then_it_is_found_without_being_asked(
        self, tmp_path: Path
    ) -> None:
        found = library(tmp_path)
        await found.open(None)  # type: ignore[arg-type]  # it needs nothing of the kernel
        try:
            write(tmp_path, "late")
            deadline = time.monotonic() + 30
            while "late" not in found.personalities() and time.monotonic() < deadline:  # noqa: ASYNC110 - a disk tells nobody
                await asyncio.sleep(0.01)
        finally:
            await found.close()

        assert names(found) == {"late": "Pirate"}

    def test_given_several_roots_when_ids_are_the_same_then_the_later_root_wins(self, tmp_path: Path) -> None:
        write(tmp_path / "a", "x/one", "name: Example\n")
        write(tmp_path / "a", "x/two", "name: Two\n")
        write(tmp_path / "b", "x/one", "name: Mine\n")

        assert names(library(tmp_path / "a", tmp_path / "b")) == {"x/one": "Mine", "x/two": "Two"}


class TestTranslations:
    def test_given_a_translation_when_it_is_asked_for_then_its_texts_count_and_the_others_stay(
        self, tmp_path: Path
    ) -> None:
        write(tmp_path, "one", PIRATE + "author: Me\nwelcome_message: Ahoy\n")
        write(tmp_path, "one/languages", "personality_conditioning: Grr.\nwelcome_message: null\n", "fr.yaml")

        card = (
            library(tmp_path, personalities_config={"one": {"language": "French"}})
            .personalities()["one"]
            .card
        )

        assert (card.conditioning, card.language, card.author, card.welcome_message) == (
            "Grr.",
            "french",
            "Me",
            "Ahoy",
        )

    @pytest.mark.parametrize(
        ("language", "said"),
        [
            ("german", "no translation into 'german'; there is: french"),
            ("french", "languages/french.yaml, line "),
        ],
    )
    def test_given_none_or_a_broken_one_when_it_is_asked_for_then_the_original_stays_and_it_is_said(
        self, tmp_path: Path, language: str, said: str
    ) -> None:
        write(tmp_path, "one")
        write(tmp_path, "one/languages", "name: [", "french.yaml")
        (tmp_path / "secret.yaml").write_text("personality_conditioning: secret\n")
        (tmp_path / "one/languages/german.yaml").symlink_to(tmp_path / "secret.yaml")

        card = (
            library(tmp_path, personalities_config={"one": {"language": language}})
            .personalities()["one"]
            .card
        )

        assert card.conditioning == "Arr."
        assert said in card.problems[0]
        assert str(tmp_path) not in card.problems[0]

    def test_given_a_changed_translation_when_looked_at_again_then_it_counts(self, tmp_path: Path) -> None:
        write(tmp_path, "one")
        write(tmp_path, "one/languages", "name: Un\n", "french.yaml")
        found = library(tmp_path, personalities_config={"one": {"language": "french"}})
        write(tmp_path, "one/languages", "name: Deux\n", "french.yaml")
        found.look()

        assert names(found) == {"one": "Deux"}


class TestCache:
    def test_given_a_large_collection_when_loaded_again_then_nothing_is_read_and_all_is_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "WORTH_KEEPING", 0.0)
        write(tmp_path, "a/one")
        write(tmp_path, "a/broken", "name: [")
        first = library(tmp_path)
        monkeypatch.setattr(module, "read_record", None)  # calling it would raise

        again = library(tmp_path)

        assert [p.card for p in again.personalities().values()] == [
            p.card for p in first.personalities().values()
        ]

    def test_given_a_change_since_when_loaded_again_then_only_that_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "WORTH_KEEPING", 0.0)
        write(tmp_path, "one")
        write(tmp_path, "two")
        library(tmp_path)
        write(tmp_path, "two", "name: New\n")

        assert names(library(tmp_path)) == {"one": "Pirate", "two": "New"}

    @pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x80"])
    def test_given_a_spoiled_cache_when_loaded_then_it_counts_for_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
    ) -> None:
        monkeypatch.setattr(module, "WORTH_KEEPING", 0.0)
        write(tmp_path, "one")
        library(tmp_path)
        file = cache_file(tmp_path)
        assert file is not None and file.stat().st_mode & 0o777 == 0o600
        file.write_bytes(data)

        assert names(library(tmp_path)) == {"one": "Pirate"}

    def test_given_a_small_collection_when_loaded_then_nothing_is_written(
        self, tmp_path: Path, own_cache: Path
    ) -> None:
        write(tmp_path, "one")
        library(tmp_path)

        assert list(own_cache.iterdir()) == []

    def test_given_a_cache_of_another_root_or_version_when_read_then_it_counts_for_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "cache"
        write_cache(file, "/one", {})
        write(tmp_path, "r/one")
        root = Root(tmp_path / "r")
        Library(MainConfig(), [root]).look()
        records = root.records or {}
        assert records
        write_cache(file, "/one", records)

        assert read_cache(file, "/one") == records
        assert read_cache(file, "/two") == {}
        monkeypatch.setattr(cache, "VERSION", 999)
        assert read_cache(file, "/one") == {}

    @pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"XDG_CACHE_HOME": "relative"}])
    def test_given_no_home_when_asked_then_there_is_no_cache(self, environ: dict[str, str]) -> None:
        assert cache_file(Path("/x"), environ) is None


class TestConditioning:
    def conditioned(self, root: Path, text: str, **request: Any) -> GenerateRequest:
        write(root, "one", text)
        (personality,) = library(root).personalities().values()
        return personality.condition(GenerateRequest(id="1", messages=(Message("user", "hi"),), **request))

    def test_given_placeholders_when_conditioned_then_they_are_filled_and_end_the_public_part(
        self, tmp_path: Path
    ) -> None:
        text = (
            "name: x\nuser_name: Ann\npersonality_conditioning: 'Today {{date}}, {{user_name}} {{else}}.'\n"
        )

        request = self.conditioned(tmp_path, text)

        assert request.system == f"Today {time.strftime('%A, %B %d, %Y')}, Ann {{{{else}}}}."
        assert request.public_prefix == len("Today ")

    def test_given_a_separator_in_the_texts_when_conditioned_then_answers_end_at_it(
        self, tmp_path: Path
    ) -> None:
        request = self.conditioned(
            tmp_path, "name: x\nuser_message_prefix: '!@>user:'\nanti_prompts: ['', x, END]\n"
        )

        assert request.ends_at == ("END", "!@>")
        assert request.parameters["stop"] == ["END", "!@>"]


def zoo(root: Path) -> dict[str, str]:
    """A collection with every quirk that is known of the published ones; id to what its name must be."""
    texts = {
        "generic/lollms": "name: LoLLMs\nversion: 1.5\nauthor: P\npersonality_description: d\ncategory: Generic\n",
        "art/no_version": "name: A\nauthor: x\npersonality_conditioning: c\n",
        "art/category list": "name: B\ncategory: [Art, Other]\nversion: 2\n",
        "art/conditioning list": "name: C\npersonality_conditioning: [one, two]\n",
        "art/le_poète délirant": "name: Le poète\nlanguage: Français\n",
        "art/UX": "name: UX/UI Developer\n",
        "history/sparrow": "name: Captain Jack Sparrow\n",
        "movies/sparrow": "name: Captain Jack Sparrow\n",
        "movies/jack": "name: captain jack sparrow\n",
        "helpers/travel guide": "name: Guide\ndependencies: [a]\ndependencies: []\n",
        "thinking/group/inner": "name: Inner\n",
        "english/generic/old": "name: Old\nlink_text: '\\n'\nanti_prompts: ['!@>', '<|end|>']\n",
        "fun/nulls": "name: N\ncategory: null\ndisclaimer: null\nrecommended_model: null\nlanguage: the user's own.\n",
        "fun/dates": "name: D\ncreation_date: 2024-01-02 03:04:05\nlast_update_date: 2024-13-99\n",
        "fun/leftovers": "name: L\npersonality_conditioning: '{self.config.start_header_id_template}x {{date}}'\n",
        "fun/commands": "name: K\ncommands: [{name: a, value: b, icon: c, help: d}]\nprocessor_cfg: {}\n",
        "fun/typo": "name: T\ninclude_welcome_message_in_disucssion: true\nwelcome_message: Hi {{user_name}}\n",
        "fun/huge numbers": "name: H\nmodel_n_predicts: 8192\nmodel_temperature: 9\n",
    }
    for where, text in texts.items():
        write(root, where, text)
    write(
        root, "soul/poet", "---\nname: Poet\ncategory: [a, b]\ntemperature: 0.7\n---\nBe a poet.\n", "SOUL.md"
    )
    write(root, "soul/bare", "Just be.\n", "SOUL.md")
    write(root, "scifi/Astra-9", "", "notes.txt")
    write(root, "bad/broken", "name: [")
    write(root, "bad/empty", "")
    write(root, "tools/legacy/scripts", "class Processor: ...\n", "processor.py")
    write(root, "tools/legacy", "name: Legacy\n")
    write(root, "tools/project_organizer/scripts", "", "processor.py")
    write(root, "tools/project_organizer", "name: Organizer\n")
    return {id: "" for id in texts} | {
        "soul/poet": "Poet",
        "soul/bare": "bare",
        "tools/legacy": "Legacy",
        "tools/project_organizer": "Organizer",
    }


def test_given_a_zoo_when_loaded_then_none_is_lost_and_two_broken_ones_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = zoo(tmp_path)

    found = library(tmp_path)

    cards = {id: personality.card for id, personality in found.personalities().items()}
    assert cards.keys() == expected.keys()
    assert cards["generic/lollms"].version == "1.5"
    assert cards["art/category list"].category == "art"
    assert cards["art/conditioning list"].conditioning == "one\ntwo"
    assert cards["english/generic/old"].link_text == "\n"
    assert cards["fun/nulls"].language == "english"
    assert (cards["fun/typo"].greets_in_history, cards["fun/typo"].greeting) == (True, "Hi user")
    assert cards["fun/huge numbers"].parameters == {"max_tokens": 8192}
    assert (cards["soul/poet"].parameters, cards["soul/bare"].name) == ({"temperature": 0.7}, "bare")
    assert (cards["tools/legacy"].legacy_script, cards["tools/project_organizer"].legacy_script) == (
        True,
        False,
    )
    left_out = [r.getMessage() for r in caplog.records if "' is left out" in r.getMessage()]
    assert [text.split("'")[1] for text in left_out] == ["bad/broken", "bad/empty"]


def test_given_thousands_when_loaded_from_the_cache_then_it_takes_less_than_a_second_of_processor_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PIRATE + "anti_prompts: ['!@>']\nmodel_temperature: 0.6\n" + "tags: [a, b]\n"
    for number in range(2000):
        write(tmp_path, f"cat{number % 40}/p{number}", text)
    monkeypatch.setattr(module, "WORTH_KEEPING", 0.0)
    library(tmp_path)

    started = time.process_time()
    found = library(tmp_path)
    took = time.process_time() - started

    assert len(found.personalities()) == 2000
    assert took < 1.0


def test_given_a_removed_root_when_looked_at_again_then_its_personalities_are_gone(tmp_path: Path) -> None:
    write(tmp_path / "root", "one")
    found = library(tmp_path / "root")
    os.rename(tmp_path / "root", tmp_path / "elsewhere")
    found.look()

    assert names(found) == {}
