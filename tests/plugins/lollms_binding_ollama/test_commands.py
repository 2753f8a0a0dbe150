"""`lollms ollama`: the real command line against the fake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lollms_kernel.testing.fakes import stalled
from lollms_kernel.testing.fakes.ollama import FakeOllama

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def lollms(fake: FakeOllama, tmp_path: Path) -> Iterator[Run]:
    """Runs `lollms ollama …` with one configured instance."""
    configure(tmp_path, mine=fake.url)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lollms_kernel", "ollama", *words]
        env = {**os.environ, "OLLAMA_HOST": "http://127.0.0.1:9", "COLUMNS": "120"}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)

    yield run


def configure(root: Path, **hosts: str) -> None:
    folder = root / "lollms_configs"
    (folder / "bindings").mkdir(parents=True, exist_ok=True)
    bindings_map = {"bindings_map": dict.fromkeys(hosts, "ollama_binding")}
    (folder / "main_config.yaml").write_text(yaml.safe_dump(bindings_map))
    for name, host in hosts.items():
        text = yaml.safe_dump({"type": "ollama_binding", "host": host})
        (folder / "bindings" / f"{name}.yaml").write_text(text)


def test_list_shows_the_models_of_the_instance_s_host(lollms: Run) -> None:
    result = lollms("list")

    assert result.returncode == 0, result.stderr
    assert (
        result.stdout.splitlines()[1].split()
        == "llama3.2:latest 1.3 GB 1.2B Q4_K_M 2026-01-02 03:04 UTC".split()
    )


def test_list_as_json(lollms: Run) -> None:
    models = json.loads(lollms("list", "--json").stdout)

    assert [model["name"] for model in models][:2] == ["llama3.2:latest", "llava:7b"]
    assert models[0]["size"] == 1_321_098_329


def test_ps_shows_what_is_loaded(lollms: Run, fake: FakeOllama) -> None:
    assert lollms("ps").stdout == "No model is loaded.\n"
    fake.loaded["qwen3:4b"] = 16384

    line = lollms("ps").stdout.splitlines()[1]
    assert line.split() == "qwen3:4b 1.3 GB 0.7 GB 16384 for ever".split()


def test_pull_tells_its_progress_and_the_model_is_there(lollms: Run, fake: FakeOllama) -> None:
    result = lollms("pull", "tiny")

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "tiny: pulling manifest",
        "tiny: verifying sha256 digest",
        "tiny: writing manifest",
        "tiny: success",
    ]
    assert "tiny:latest" in fake.models


def test_pulling_what_does_not_exist_fails_with_the_cure(lollms: Run) -> None:
    result = lollms("pull", "no-such-model")

    assert result.returncode == 1
    assert result.stderr == (
        "lollms: Ollama's library has no model 'no-such-model'. https://ollama.com/library lists them.\n"
    )


def test_a_download_that_stalls_can_be_interrupted(lollms: Run, fake: FakeOllama, tmp_path: Path) -> None:
    import signal

    fake.faults.append(stalled(3, "/api/pull"))
    command = [sys.executable, "-m", "lollms_kernel", "ollama", "pull", "tiny", "--host", fake.url]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"tiny: pulling manifest\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert fake.requests_to("/api/pull")[0].left.wait(30)


def test_nobody_there_is_one_line_with_the_cure(lollms: Run) -> None:
    result = lollms("list", "--host", "http://127.0.0.1:9")

    assert result.returncode == 1
    assert result.stderr.startswith(
        "lollms: Ollama (binding instance 'ollama') cannot be reached. Start it with"
    )
    assert result.stderr.count("\n") == 1


def test_several_instances_have_to_be_told_apart(lollms: Run, fake: FakeOllama, tmp_path: Path) -> None:
    configure(tmp_path, here=fake.url, there="http://127.0.0.1:9")

    assert "--instance: here, there" in lollms("list").stderr
    assert lollms("list", "--instance", "here").returncode == 0
    assert "No Ollama instance is called 'x'" in lollms("list", "--instance", "x").stderr
    assert lollms("list", "--instance", "x").returncode == 2
