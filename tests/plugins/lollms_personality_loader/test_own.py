"""The personalities that come with the package, in a server without any configuration: the embedded model answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lollms_kernel.testing import ServerProcess

README = Path(__file__).parents[3] / "README.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(root=tmp_path_factory.mktemp("own")) as running:
        yield running


def ask(server: ServerProcess, personality: str, prompt: str, stream: bool = False) -> httpx.Response:
    body = {"text_prompt": prompt, "personality": personality, "stream": stream}
    answer = httpx.post(f"{server.url}/api/v1/generate", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer


def output(server: ServerProcess, personality: str, prompt: str) -> Any:
    (found,) = ask(server, personality, prompt).json()["output"]
    return found


def test_the_example_of_the_readme_is_a_guide_of_three_answers(server: ServerProcess) -> None:
    (personality, prompt) = re.findall(
        r'^\$ lollms generate --personality (\S+) "(.+)"$', README.read_text(), re.M
    )[0]

    found = output(server, personality, prompt)

    assert found["type"] == "text"
    answer, *others = re.split(r"\n\n## .+\?\n\n", found["data"])
    assert "allowed_api_keys" in answer
    assert len(others) == 2
    assert all(len(text) > 40 for text in others)
    assert (found["metadata"]["steps"], found["metadata"]["model_used"]) == (3, "lollms-guide")


def test_its_answers_stream_while_they_are_made(server: ServerProcess) -> None:
    text = ask(server, "server_tour", "How do I stop the server?", stream=True).text

    assert text.count('"type":"chunk"') > 30
    assert [int(step) for step in re.findall(r'"status":"step","step":(\d)', text)] == [1, 2, 3]


def test_the_plain_one_answers_and_the_one_with_functions_says_that_this_model_calls_none(
    server: ServerProcess,
) -> None:
    plain = output(server, "plain_words", "The server shall be started.")
    reckoner = output(server, "reckoner", "What is 6 * 7?")

    assert plain["data"]
    (notice,) = [n for n in reckoner["metadata"]["notices"] if n["code"] == "functions_not_supported"]
    assert "calculator.evaluate, clock.now, clock.days_between" in notice["message"]


def test_nothing_is_wrong_with_them(server: ServerProcess) -> None:
    listed = httpx.get(f"{server.url}/api/v1/list_personalities").json()["personalities"]

    assert {"writing/plain_words", "tools/reckoner", "guide/server_tour"} <= listed.keys()
    assert not any("problems" in personality for personality in listed.values())
    assert listed["guide/server_tour"]["script_enabled"] is True
