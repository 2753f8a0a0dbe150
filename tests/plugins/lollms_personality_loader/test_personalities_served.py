"""Personalities of a folder in a running server: listed, and at work in a request."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from lollms_kernel.testing import ServerProcess

ECHO = {"type": "dummy_binding", "binding_instance_name": "echo", "echo_system": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose binding answers what reached it, with three personalities, one of them broken."""
    root = tmp_path_factory.mktemp("served")
    texts = {
        "pirate": "name: Captain\npersonality_conditioning: Answer like a pirate.\nmodel_temperature: 0.6\n",
        "fun/poet": "name: Poet\nauthor: Someone\nversion: 2.0\npersonality_conditioning: Rhyme.\n",
        "broken": "name: [",
    }
    for folder, text in texts.items():
        (root / "personal/personalities" / folder).mkdir(parents=True)
        (root / "personal/personalities" / folder / "config.yaml").write_text(text)
    with ServerProcess({"defaults": {"ttt_binding": "echo"}}, {"echo": ECHO}, root=root) as running:
        yield running


def test_given_a_folder_of_personalities_when_listed_then_all_but_the_broken_one_are_there(
    server: ServerProcess,
) -> None:
    listed = httpx.get(f"{server.url}/api/v1/list_personalities").json()["personalities"]

    assert {"pirate", "fun/poet"} <= listed.keys()
    assert "broken" not in listed
    poet = listed["fun/poet"]
    assert (poet["name"], poet["author"], poet["version"], poet["category"]) == (
        "Poet",
        "Someone",
        "2.0",
        "fun",
    )


def test_given_a_broken_personality_when_the_server_starts_then_its_log_says_where(
    server: ServerProcess,
) -> None:
    assert "Personality 'broken' is left out." in server.log()
    assert "config.yaml, line " in server.log()


@pytest.mark.parametrize("name", ["pirate", "Captain"])
def test_given_a_personality_when_asked_then_its_conditioning_and_parameters_reach_the_binding(
    server: ServerProcess, name: str
) -> None:
    body = {"input_data": [{"type": "text", "role": "user_prompt", "data": "Hi"}], "personality": name}

    answer = httpx.post(f"{server.url}/api/v1/generate", json=body, timeout=60).json()

    received = json.loads(answer["output"][0]["data"])
    assert (received["system"], received["parameters"]["temperature"]) == ("Answer like a pirate.", 0.6)
