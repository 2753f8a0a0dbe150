"""Personalities of a folder in a running server: listed, and at work in a request."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from lollms_kernel.testing import ServerProcess

PARROT = """
name: Parrot
personality_conditioning: Repeat everything.
welcome_message: Hello {{user_name}}!
user_name: mate
disclaimer: It bites.
prompts_list: ['@<Say>@Say [what]']
anti_prompts: ['!@>', 'User:']
model_top_k: 5
model_temperature: 0.4
"""
LOGOS = {"logo.png": b"\x89PNG\r\n\x1a\n rest"}
CHATTY = {
    "type": "dummy_binding",
    "binding_instance_name": "chatty",
    "chunks": ["Polly wants", " a cracker. uS", "ER: what? ", "more"],
}
ECHO = {"type": "dummy_binding", "binding_instance_name": "echo", "echo_system": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose binding answers what reached it, with three personalities, one of them broken."""
    root = tmp_path_factory.mktemp("served")
    texts: dict[str, str] = {
        "pirate": "name: Captain\npersonality_conditioning: Answer like a pirate.\nmodel_temperature: 0.6\n",
        "fun/poet": "name: Poet\nauthor: Someone\nversion: 2.0\npersonality_conditioning: Rhyme.\n",
        "broken": "name: [",
    }
    texts["fun/parrot"] = PARROT
    for folder, text in texts.items():
        (root / "personal/personalities" / folder).mkdir(parents=True)
        (root / "personal/personalities" / folder / "config.yaml").write_text(text)
    parrot = root / "personal/personalities/fun/parrot"
    for name, data in LOGOS.items():
        (parrot / "assets").mkdir(exist_ok=True)
        (parrot / "assets" / name).write_bytes(data)
    (parrot / "languages").mkdir()
    (parrot / "languages/french.yaml").write_text("personality_conditioning: Repete tout.\n")
    config = {
        "defaults": {"ttt_binding": "echo"},
        "personalities_config": {
            "parrot": {"language": "fr", "binding": "chatty", "parameters": {"seed": 4, "top_k": None}},
            "off": {"enabled": False},
        },
    }
    with ServerProcess(config, {"echo": ECHO, "chatty": CHATTY}, root=root) as running:
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


def get(server: ServerProcess, path: str) -> httpx.Response:
    return httpx.get(f"{server.url}/api/v1/{path}", timeout=60)


@pytest.mark.parametrize("name", ["fun/parrot", "parrot", "Parrot", "PARROT", "fun%2Fparrot"])
def test_given_a_name_id_or_folder_when_looked_up_then_all_of_it_is_told_but_its_conditioning(
    server: ServerProcess, name: str
) -> None:
    found = get(server, f"get_personality/{name}").json()

    assert (found["id"], found["name"], found["category"], found["path"]) == (
        "fun/parrot",
        "Parrot",
        "fun",
        "parrot",
    )
    assert (found["welcome_message"], found["disclaimer"]) == ("Hello mate!", "It bites.")
    assert (found["language"], found["languages"]) == ("french", ["french"])
    assert found["prompts_list"] == ["@<Say>@Say [what]"]
    assert (found["has_logo"], found["icon"]) == (True, "logo.png")
    assert (found["binding_name"], found["parameters"]) == ("chatty", {"temperature": 0.4, "seed": 4})
    assert "conditioning" not in found
    assert "Repete" not in str(found)


def test_given_nobody_of_that_name_when_looked_up_then_it_is_not_found(server: ServerProcess) -> None:
    for path in ("get_personality/nobody", "get_personality_logo/nobody", "get_personality/..%2f..%2fetc"):
        answer = get(server, path)
        assert (answer.status_code, "not found" in answer.json()["detail"]) == (404, True)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("logo.png", b"\x89PNG\r\n\x1a\n rest", "image/png"),
        ("logo.png", b"\xff\xd8\xff rest", "image/jpeg"),  # its content counts, not its name
        ("logo.gif", b"GIF89a rest", "image/gif"),
        ("logo.webp", b"RIFF0000WEBP", "image/webp"),
        ("logo.bmp", b"BM rest", "image/bmp"),
        ("logo.png", b"<html><script>", None),
        ("logo.png", b"", None),
        ("logo.png", b"\x89PNG\r\n\x1a\n" + b"x" * (8 << 20), None),
    ],
)
def test_given_a_logo_when_asked_for_then_it_has_the_type_of_its_content(
    server: ServerProcess, name: str, data: bytes, kind: str | None
) -> None:
    assets = server.root / "personal/personalities/fun/parrot/assets"
    for old in assets.iterdir():
        old.unlink()
    (assets / name).write_bytes(data)
    wait_until(lambda: get(server, "get_personality/parrot").json()["icon"] == name)

    answer = get(server, "get_personality_logo/fun/parrot")

    if kind is None:
        assert answer.status_code == 404
        return
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, kind, data)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_given_a_logo_that_leads_out_when_asked_for_then_there_is_none(server: ServerProcess) -> None:
    secret = server.root / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\n secret")
    assets = server.root / "personal/personalities/fun/parrot/assets"
    for old in assets.iterdir():
        old.unlink()
    (assets / "logo.png").symlink_to(secret)

    answer = get(server, "get_personality_logo/parrot")

    assert answer.status_code == 404
    assert b"secret" not in answer.content.replace(b"secret.png", b"")


def wait_until(fits: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not fits():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.05)


def test_given_anti_prompts_when_asked_then_the_answer_ends_before_them_on_the_personalitys_binding(
    server: ServerProcess,
) -> None:
    inputs = [{"type": "text", "role": "user_prompt", "data": "Hi"}]
    body = {"input_data": inputs, "personality": "parrot"}

    (output,) = httpx.post(f"{server.url}/api/v1/generate", json=body, timeout=60).json()["output"]
    streamed = httpx.post(f"{server.url}/api/v1/generate", json={**body, "stream": True}, timeout=60).text

    assert output["data"] == "Polly wants a cracker."
    assert output["metadata"]["binding_instance"] == "chatty"
    assert "what?" not in streamed
    assert "uS" not in streamed


def test_given_a_translation_when_asked_then_its_conditioning_reaches_the_binding(
    server: ServerProcess,
) -> None:
    inputs = [{"type": "text", "role": "user_prompt", "data": "Hi"}]
    body = {"input_data": inputs, "personality": "parrot", "binding_name": "echo"}

    answer = httpx.post(f"{server.url}/api/v1/generate", json=body, timeout=60).json()

    received = json.loads(answer["output"][0]["data"])
    assert received["system"] == "Repete tout."
    assert received["parameters"]["stop"] == ["!@>", "User:"]


def test_given_a_running_server_when_folders_come_and_go_then_listings_and_requests_follow(
    server: ServerProcess,
) -> None:
    def listed() -> dict[str, Any]:
        found: dict[str, Any] = get(server, "list_personalities").json()["personalities"]
        return found

    folder = server.root / "personal/personalities/late/comer"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("name: Late\npersonality_conditioning: Be late.\n")
    wait_until(lambda: "late/comer" in listed())

    body = {"text_prompt": "Hi", "personality": "Late"}
    answer = httpx.post(f"{server.url}/api/v1/generate", json=body, timeout=60).json()
    assert json.loads(answer["output"][0]["data"])["system"] == "Be late."

    shutil.rmtree(folder)
    wait_until(lambda: "late/comer" not in listed())
    assert httpx.post(f"{server.url}/api/v1/generate", json=body, timeout=60).status_code == 404
