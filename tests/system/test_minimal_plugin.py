"""The example plugin, installed as a stranger would: fresh environment, pip, the commands of its README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from lollms_kernel.testing.server_process import free_port

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "minimal-plugin"
LIMIT = 300.0
"""Seconds for installing; a full download of everything the kernel needs included."""


def clean_environment() -> dict[str, str]:
    """The environment without whatever would let the new installation see this one or its configuration."""
    hidden = ("PYTHON", "VIRTUAL_ENV", "LOLLMS_")
    return {key: value for key, value in os.environ.items() if not key.startswith(hidden)}


def run(*command: str | Path, cwd: Path, limit: float = 60.0) -> str:
    """What a command prints; its whole output is the message when it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment that holds the kernel and the example, and the configuration of its README."""
    folder = tmp_path_factory.mktemp("stranger")
    run(sys.executable, "-m", "venv", folder / "env", cwd=folder, limit=LIMIT)
    python = folder / "env/bin/python"
    run(python, "-m", "pip", "install", "--no-compile", ROOT / "kernel", EXAMPLE, cwd=folder, limit=LIMIT)
    readme = (EXAMPLE / "README.md").read_text("utf-8")
    for path, text in re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", readme, re.MULTILINE | re.DOTALL):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    """A server of that environment, started by the command of the README."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (home / "server.log").open("wb") as log:
        command = [str(home / "env/bin/lollms"), "serve", "--port", str(port)]
        server = subprocess.Popen(
            command, cwd=home, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_until_healthy(server, url, home / "server.log")
        yield url
    finally:
        server.terminate()
        server.wait(30)


def wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when the server answers; it has no other sign to wait for that a client could see."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"the server is not healthy\n{log.read_text(errors='replace')}")


def body(prompt: str, **fields: object) -> dict[str, object]:
    return {"input_data": [{"type": "text", "role": "user_prompt", "data": prompt}], **fields}


@pytest.mark.long
def test_given_it_is_installed_when_plugins_are_listed_then_it_is_loaded(home: Path) -> None:
    plugins = msgspec.json.decode(run(home / "env/bin/lollms", "plugins", "--json", cwd=home))

    (own,) = [plugin for plugin in plugins if plugin["name"] == "lollms-binding-shout"]
    assert (own["state"], own["hooks"]) == ("loaded", ["register_bindings"])


def test_given_the_instance_of_the_readme_when_asked_then_it_answers_in_capitals(url: str) -> None:
    answer = httpx.post(f"{url}/api/v1/generate", json=body("hello there"), timeout=60)

    assert answer.status_code == 200, answer.text
    assert [output["data"] for output in answer.json()["output"]] == ["HELLO THERE !!!"]


def test_given_a_stream_when_asked_then_the_words_come_one_by_one(url: str) -> None:
    answer = httpx.post(f"{url}/api/v1/generate", json=body("hello there", stream=True), timeout=60)

    events = [msgspec.json.decode(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [event["content"] for event in events if event["type"] == "chunk"] == ["HELLO ", "THERE ", "!!!"]
    assert events[-1]["type"] == "final"


def test_given_another_model_when_asked_then_it_is_refused_with_the_names_of_its_own(url: str) -> None:
    answer = httpx.post(f"{url}/api/v1/generate", json=body("hello", model_name="whisper"), timeout=60)

    assert answer.status_code == 503, answer.text  # the protocol's status for a model that cannot be loaded
    assert "loud" in answer.json()["detail"]


def test_given_the_command_of_the_readme_when_run_then_it_prints_what_the_readme_shows(
    home: Path, url: str
) -> None:
    readme = (EXAMPLE / "README.md").read_text("utf-8")
    (shown,) = re.findall(r'^\$ lollms generate "hello there"\n(.*)\n', readme, re.MULTILINE)

    printed = run(home / "env/bin/lollms", "generate", "--url", url, "hello there", cwd=home)

    assert printed.splitlines() == [shown]
