"""The built-in guide, asked through a live server: it knows its topics, and what it says about the server is true."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml

from lollms_kernel.config.schema import MainConfig
from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.server_process import free_port

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "plugins" / "lollms-binding-llamacpp" / "guide"
TOPICS: dict[str, dict[str, Any]] = {
    topic["id"]: topic for topic in yaml.safe_load((GUIDE / "topics.yaml").read_text(encoding="utf-8"))
}
STRANGER = yaml.safe_load((GUIDE / "questions" / "stranger.yaml").read_text(encoding="utf-8"))

# RESULTS.md has the figures of the committed file: 86.6 % of server questions, 90.7 % of refusals, 11 of 12 thoughts.
# Greedy answers differ between processors in a rare question whose best two tokens are nearly equal: the floors leave
# room for one question of each kind.
FLOORS = {"server": 0.85, "out_of_scope": 0.88, "think": 0.83, "social": 0.85, "skill": 0.88}


def canonical(topic: str) -> str:
    entry = TOPICS[topic]
    return str(entry["answer"] if "answer" in entry else canonical(entry["same_as"]))


ANSWERS = {topic: canonical(topic) for topic in TOPICS}
QUOTED = sorted({quoted for answer in ANSWERS.values() for quoted in re.findall(r"`([^`]+)`", answer)})


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


# --- what it knows ---


def right(entry: dict[str, Any], text: str, thoughts: str | None) -> bool:
    if entry["kind"] == "think":
        return thoughts is not None
    if entry["kind"] == "skill":
        return re.search(rf"(?<!\w){re.escape(str(entry['expect']))}(?!\w)", text, re.IGNORECASE) is not None
    name = str(entry.get("expect", ""))
    topics = ["refusal"] if entry["kind"] == "out_of_scope" else entry["topics"]
    accepted = {ANSWERS[topic].replace("{name}", name) for topic in topics}
    if "name_asked" in topics and not name:
        accepted.add(ANSWERS["name_unknown"])
    return text in accepted


@pytest.mark.long
def test_it_answers_the_frozen_questions_of_strangers(server: ServerProcess) -> None:
    total: Counter[str] = Counter()
    good: Counter[str] = Counter()
    unasked: list[str] = []
    with httpx.Client(timeout=60) as client:
        for entry in STRANGER:
            items = [
                {"type": "text", "role": role, "data": text}
                for role, text in [
                    ("system_context", entry.get("system")),
                    ("user_prompt", entry["question"]),
                ]
                if text
            ]
            answer = client.post(f"{server.url}/api/v1/generate", json={"input_data": items}).json()
            output = answer["output"][0]
            total[entry["kind"]] += 1
            good[entry["kind"]] += right(entry, output["data"], output.get("thoughts"))
            if output.get("thoughts") and entry["kind"] != "think":
                unasked.append(entry["id"])
    figures = {kind: f"{good[kind]}/{total[kind]}" for kind in total}
    assert sum(total.values()) >= 100
    assert not unasked, "thoughts that nobody asked for"
    assert all(good[kind] >= floor * total[kind] for kind, floor in FLOORS.items()), figures


def test_the_first_hello_is_answered_in_a_stream_that_says_what_it_is(server: ServerProcess) -> None:
    body = {"input_data": [{"type": "text", "role": "user_prompt", "data": "hello"}], "stream": True}
    with httpx.stream("POST", f"{server.url}/api/v1/generate", json=body, timeout=60) as answer:
        events = [msgspec.json.decode(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
    assert len(events) > 10
    assert events[-1]["content"][0]["data"] == ANSWERS["hello"]
    assert "tiny demonstration model" in ANSWERS["hello"]


# --- whether it tells the truth ---


def test_no_answer_holds_a_tag_that_the_server_would_take_for_a_thought() -> None:
    assert not [topic for topic, answer in ANSWERS.items() if "think>" in answer.lower()]


def commands(program: str) -> list[str]:
    found = [quoted for quoted in QUOTED if quoted.split()[0] == program]
    assert found
    return found


def lollms(command: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    arguments = shlex.split(
        command.replace("8000", str(free_port())).replace("DIR", str(folder / "elsewhere"))
    )
    environment = {**os.environ, "LOLLMS_PORT": str(free_port()), "LOLLMS_MAIN_PORT_ONLY": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "lollms_kernel", *arguments[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment,
        **options,
    )


@pytest.mark.parametrize("command", commands("lollms"))
def test_every_lollms_command_it_names_works(command: str, tmp_path: Path) -> None:
    if "0.0.0.0" in command:
        (tmp_path / "lollms_configs").mkdir()
        (tmp_path / "lollms_configs" / "main_config.yaml").write_text(
            "security: {allowed_api_keys: [a-test-key]}\n"
        )
    with lollms(command, tmp_path) as process:
        assert process.stdout is not None
        if command.startswith("lollms serve"):
            assert "ready on http" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.stdout.read()
        else:
            output, _ = process.communicate("hello\n" if command == "lollms chat" else "", timeout=60)
            assert output.strip()
        assert process.wait(30) == 0


def test_opening_it_to_others_needs_a_key_as_it_says(tmp_path: Path) -> None:
    with lollms("lollms serve --host 0.0.0.0", tmp_path) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "security.allowed_api_keys" in output


@pytest.mark.parametrize("command", commands("make"))
def test_every_make_target_it_names_exists(command: str) -> None:
    subprocess.run([*command.split(), "-n"], cwd=ROOT, check=True, capture_output=True, timeout=60)


def test_other_programs_it_names_are_the_ones_that_are_meant() -> None:
    known = {"git pull", "pip install -e"}  # test_minimal_plugin.py runs the second
    programs = {
        quoted for quoted in QUOTED if quoted.split()[0] in ("git", "pip", "curl", "python", "uv", "docker")
    }
    assert programs == known
    assert (ROOT / "examples" / "minimal-plugin" / "pyproject.toml").is_file()


def test_every_configuration_key_it_names_exists() -> None:
    dotted = [
        quoted.partition(":")[0] for quoted in QUOTED if re.fullmatch(r"[a-z_]+\.[a-z_]+(: .*)?", quoted)
    ]
    assert dotted
    plain = msgspec.to_builtins(MainConfig())
    for path in dotted:
        section, key = path.split(".")
        assert key in plain[section], path


def test_every_endpoint_it_names_is_served(server: ServerProcess) -> None:
    named = {path for answer in ANSWERS.values() for path in re.findall(r"/(?:api/v1/\w+|health)", answer)}
    assert len(named) > 3
    served = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert named <= served.keys()
    assert httpx.get(f"{server.url}/docs").status_code == 200
