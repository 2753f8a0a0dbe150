"""Every event of the protocol, with and without a payload, and what a malformed one is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.fakes.ollama import FakeOllama

from .socketio_client import Client, connected

MODEL = {
    "title": "echo-model",
    "icon": "/images/default_model.png",
    "license": "unknown",
    "owner": "unknown",
    "owner_link": "",
    "description": "context of 4096 tokens",
    "isInstalled": True,
    "path": "echo-model",
    "filesize": 0,
    "model_type": "api",
}

LISTINGS = {
    "list_available_bindings": "bindings_list",
    "list_available_personalities": "personalities_list",
    "list_available_models": "available_models_list",
    "list_available_personalities_languages": "available_personalities_languages_list",
    "list_available_personalities_categories": "available_personalities_categories_list",
    "list_available_personalities_names": "list_available_personalities_names_list",
    "list_active_personalities": "active_personalities_list",
}


@pytest.mark.parametrize(("event", "reply"), LISTINGS.items())
async def test_listings_answer_with_and_without_a_payload(client: Client, event: str, reply: str) -> None:
    bare = await client.ask(event, reply=reply)

    assert await client.ask(event, {}, reply=reply) == bare
    assert await client.ask(event, None, reply=reply) == bare
    assert await client.ask(event, "anything", 7, reply=reply) == bare
    assert "error" not in bare


async def test_bindings_are_listed_with_card_and_models(client: Client) -> None:
    listed = await client.ask("list_available_bindings", reply="bindings_list")

    assert listed["success"] is True
    entries = {entry["name"]: entry for entry in listed["bindings"]}
    assert entries.keys() == {"echo", "seen", "slow", "other", "mute", "failing", "thinking"}
    assert entries["echo"].keys() == {"name", "card", "models"}
    assert {"name", "author", "version", "link", "description"} <= entries["echo"]["card"].keys()
    (model,) = entries["echo"]["models"]
    assert (model["filename"], model["model_type"], model["filesize"]) == ("echo-model", "api", 0)


async def test_models_of_the_chosen_binding_are_listed(client: Client) -> None:
    listed = await client.ask("list_available_models", reply="available_models_list")

    assert listed == {"success": True, "available_models": [MODEL]}

    await client.ask("select_binding", {"binding_name": "other"}, reply="select_binding")
    listed = await client.ask("list_available_models", reply="available_models_list")
    assert [model["title"] for model in listed["available_models"]] == ["other-model"]


async def test_personalities_are_listed_by_language_and_category(client: Client) -> None:
    listed = await client.ask("list_available_personalities", reply="personalities_list")
    languages = await client.ask(
        "list_available_personalities_languages", reply="available_personalities_languages_list"
    )

    assert listed.keys() == {"personalities"}
    (info,) = [info for info in listed["personalities"]["english"]["generic"] if info["id"] == "lollms"]
    assert info == {
        "id": "lollms",
        "folder": "lollms",
        "name": "lollms",
        "description": "A helpful and honest assistant.",
        "author": "lollms",
        "version": "1.0",
        "has_scripts": False,
        "has_logo": False,
        "avatar": "",
    }
    assert languages["success"] is True
    assert "english" in languages["available_personalities_languages"]


async def test_categories_and_names_can_be_asked_for_by_place(client: Client) -> None:
    categories, names = "list_available_personalities_categories", "list_available_personalities_names"
    categories_list, names_list = "available_personalities_categories_list", f"{names}_list"
    english, french = {"language": "english"}, {"language": "french"}

    in_english = await client.ask(categories, english, reply=categories_list)
    assert in_english["success"] is True
    assert "generic" in in_english["available_personalities_categories"]
    generic = await client.ask(names, {**english, "category": "generic"}, reply=names_list)
    assert generic["success"] is True
    assert "lollms" in generic["list_available_personalities_names"]
    for event, reply in ((categories, categories_list), (names, names_list)):
        refused = await client.ask(event, french, reply=reply)
        assert refused["success"] is False
        assert "'french'" in refused["error"]
        assert "english" in refused["error"]


async def test_select_binding_takes_instances_and_types_and_refuses_the_rest(client: Client) -> None:
    for name in ("other", "dummy_binding"):
        chosen = await client.ask("select_binding", {"binding_name": name}, reply="select_binding")
        assert chosen == {"success": True, "binding_name": name}

    refused = await client.ask("select_binding", {"binding_name": "nowhere"}, reply="select_binding")
    assert (refused["success"], refused["binding_name"]) == (False, "nowhere")
    assert refused["error"].startswith("Couldn't load binding:\n")
    assert "'nowhere'" in refused["error"]


async def test_select_model_takes_only_what_the_binding_has(client: Client) -> None:
    await client.ask("select_binding", {"binding_name": "other"}, reply="select_binding")

    chosen = await client.ask("select_model", {"model_name": "other-model"}, reply="select_model")
    refused = await client.ask("select_model", {"model_name": "echo-model"}, reply="select_model")

    assert chosen == {"success": True, "model_name": "other-model"}
    assert (refused["success"], refused["model_name"]) == (False, "echo-model")
    assert "other-model" in refused["error"]


async def test_tokens_go_there_and_back(client: Client) -> None:
    assert await client.ask("tokenize", {"prompt": "aé"}, reply="tokenized") == {"tokens": [97, 195, 169]}
    assert await client.ask("detokenize", {"prompt": [97, 195, 169]}, reply="detokenized") == {"text": "aé"}


async def test_what_a_binding_cannot_do_is_said(client: Client) -> None:
    embedded = await client.ask("embed", {"prompt": "a"}, reply="embeded")
    assert embedded["success"] is False
    assert "does not support embeddings" in embedded["error"]

    await client.ask("select_binding", {"binding_name": "mute"}, reply="select_binding")
    tokenized = await client.ask("tokenize", {"prompt": "a"}, reply="tokenized")
    assert tokenized["success"] is False
    assert "does not support tokenization" in tokenized["error"]


MALFORMED: dict[str, tuple[str, list[Any]]] = {
    "select_binding": ("select_binding", [None, {}, {"binding_name": 5}, [], "echo"]),
    "select_model": ("select_model", [None, {}, {"model_name": None}, {"model_name": ""}, 5]),
    "add_personality": (
        "personality_add_failed",
        [None, {}, {"path": 5}, {"path": ""}, {"path": "\0"}, True],
    ),
    "activate_personality": (
        "personality_add_failed",
        [None, {}, {"id": "first"}, {"id": -1}, {"id": 1}, {"id": 2**70}, {"id": True}],
    ),
    "tokenize": ("tokenized", [None, {}, {"prompt": 5}]),
    "detokenize": ("detokenized", [None, {"prompt": "a"}, {"prompt": [2**70]}, {"prompt": [-1]}]),
    "embed": ("embeded", [None, {"prompt": []}]),
    "list_available_personalities_names": (
        "list_available_personalities_names_list",
        [{"language": 5}, {"category": []}],
    ),
    "generate_text": (
        "generation_error",
        [
            None,
            {},
            {"prompt": 5},
            {"prompt": "a", "personality": 7},
            {"prompt": "a", "personality": -2},
            {"prompt": "a", "personality": "nobody"},
            {"prompt": "a", "personality": []},
            {"prompt": "a", "n_predicts": "many"},
            {"prompt": "a", "n_predicts": 0},
            {"prompt": "a", "n_crop": 0},
            {"prompt": "a", "parameters": [1]},
            {"prompt": "a", "parameters": {"top_k": "few"}},
            {"prompt": "a", "parameters": {"seed": 2**70}},
            ["prompt"],
        ],
    ),
}


@pytest.mark.parametrize("event", MALFORMED)
async def test_a_malformed_payload_is_answered_with_its_error(client: Client, event: str) -> None:
    reply, payloads = MALFORMED[event]

    for payload in payloads:
        answered = await client.ask(event, *([] if payload is None else [payload]), reply=reply)
        assert answered["error"], payload
        assert answered.get("success", False) is False


async def test_cancelling_when_idle_is_answered_under_both_names(client: Client) -> None:
    for event in ("cancel_generation", "cancel_text_generation"):
        payloads: list[list[Any]] = [[], [{}], [5]]
        for payload in payloads:
            answered = await client.ask(event, *payload, reply="generation_canceled")
            assert answered == {"message": "Generation is canceled."}


async def test_unknown_and_reserved_events_harm_nobody(client: Client) -> None:
    for event in ("connect", "disconnect", "*", "", " malformed", "__disconnect_final", "install_model"):
        await client.wire._send_packet(  # the client itself refuses to emit some of these
            client.wire.packet_class(2, data=[event, {"asgi.scope": {}}, {}], namespace="/")
        )

    assert await client.ask("tokenize", {"prompt": "a"}, reply="tokenized") == {"tokens": [97]}
    assert not client.gone.is_set()


async def test_without_any_binding_everything_says_so(tmp_path: Path) -> None:
    config: dict[str, Any] = {"bindings_map": {"gone": "no_such_type"}}

    with ServerProcess(config, root=tmp_path) as server:
        async with connected(server.url) as client:
            models = await client.ask("list_available_models", reply="available_models_list")
            model = await client.ask("select_model", {"model_name": "any"}, reply="select_model")
            bindings = await client.ask("list_available_bindings", reply="bindings_list")
            *_, last = await client.generate("hello")

    assert models == {"success": False, "error": "No binding selected"}
    assert model == {"success": False, "model_name": "any", "error": "Please select a binding first"}
    assert [entry["name"] for entry in bindings["bindings"]] == ["gone"]
    assert bindings["bindings"][0]["models"] == []
    assert "no_such_type" in bindings["bindings"][0]["card"]["error"]
    assert last[0] == "generation_error"


# --- personalities by path --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zoo")
    for path in ("english/art/painter", "french/generic/poète"):
        folder = root / "personal" / "personalities" / path
        (folder / "scripts").mkdir(parents=True)
        language = path.split("/")[0]
        fields = {
            "name": folder.name.title(),
            "language": language,
            "personality_conditioning": f"Be {folder.name}.",
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(fields, allow_unicode=True), "utf-8")
        (folder / "scripts" / "processor.py").write_text(f"open({str(root / 'executed')!r}, 'w')\n")
    outside = root / "outside"
    outside.mkdir()
    (outside / "config.yaml").write_text("name: Outside\npersonality_conditioning: x\n")
    return root


@pytest.fixture(scope="module")
def zoo_server(zoo: Path) -> Iterator[ServerProcess]:
    with FakeOllama() as ollama:
        instances: dict[str, dict[str, Any]] = {
            "seen": {"type": "dummy_binding", "echo_system": True},
            "remote": {"type": "ollama_binding", "host": ollama.url},
        }
        with ServerProcess({"defaults": {"ttt_binding": "seen"}}, instances, root=zoo) as server:
            yield server


async def test_a_text_becomes_a_vector(zoo_server: ServerProcess) -> None:
    async with connected(zoo_server.url) as client:
        await client.ask("select_binding", {"binding_name": "remote"}, reply="select_binding")
        await client.ask("select_model", {"model_name": "all-minilm"}, reply="select_model")
        embedded = await client.ask("embed", {"prompt": "hello"}, reply="embeded")

    assert embedded.keys() == {"text"}
    assert len(embedded["text"]) > 1
    assert all(isinstance(number, float) for number in embedded["text"])


async def test_personalities_are_added_by_id_name_place_and_contained_path(
    zoo: Path, zoo_server: ServerProcess
) -> None:
    folder = zoo / "personal" / "personalities" / "english" / "art" / "painter"
    ways = [
        "english/art/painter",
        "Painter",
        "painter",
        "art/painter",
        str(folder),
        f"{folder}/",
        str(folder / "config.yaml"),
    ]

    for way in ways:
        async with connected(zoo_server.url) as client:
            added = await client.ask("add_personality", {"path": way}, reply="personality_added")
            assert added == {"success": True, "name": "Painter", "id": 1}, way
            again = await client.ask("add_personality", {"path": "painter"}, reply="personality_added")
            assert again == added
            active = await client.ask("list_active_personalities", reply="active_personalities_list")
            assert active == {"success": True, "personalities": ["lollms", "Painter"]}


async def test_what_the_listing_shows_can_be_added_and_answers(zoo_server: ServerProcess) -> None:
    async with connected(zoo_server.url) as client:
        listed = (await client.ask("list_available_personalities", reply="personalities_list"))[
            "personalities"
        ]
        (poet,) = listed["french"]["generic"]
        await client.ask(
            "add_personality", {"path": f"french/generic/{poet['folder']}"}, reply="personality_added"
        )
        chosen = await client.ask("activate_personality", {"id": 1}, reply="activate_personality")

        assert chosen == {"success": True, "name": "Poète", "id": 1}
        assert json.loads(await client.answer("hello"))["system"] == "Be poète."
        assert json.loads(await client.answer("hello", personality=1))["system"] == "Be poète."
        assert json.loads(await client.answer("hello", personality=poet["id"]))["system"] == "Be poète."
        assert json.loads(await client.answer("hello", personality=0))["system"] != "Be poète."


async def test_paths_that_lead_elsewhere_are_refused_and_no_script_ever_runs(
    zoo: Path, zoo_server: ServerProcess
) -> None:
    root = zoo / "personal" / "personalities"
    (root / "link").symlink_to(zoo / "outside")
    elsewhere = [
        str(zoo / "outside"),
        "/etc",
        "/no/such/place",
        "../outside",
        "english/../../../outside",
        str(root / "link"),
        str(root),
        "english/art/nobody",
        str(root / "english" / "art" / "nobody"),
    ]

    async with connected(zoo_server.url) as client:
        answers = {
            path: await client.ask("add_personality", {"path": path}, reply="personality_add_failed")
            for path in elsewhere
        }

    assert all(answer["success"] is False and answer["error"] for answer in answers.values())
    assert answers["/etc"] == answers["/no/such/place"], "it tells what exists on this machine"
    assert not (zoo / "executed").exists()
