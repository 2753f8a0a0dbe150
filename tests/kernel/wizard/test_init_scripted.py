"""`lollms init` in a script: everything on the command line, nothing asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from lollms_kernel.config.formats import read_mapping
from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.fakes.ollama import FakeOllama
from lollms_kernel.wizard import PRESETS

from ..cli.commands import Workplace

LLAMA = ("--preset", "LlamaCpp CPU (Local Text)", "--yes")
OPENAI = ("--preset", "OpenAI API (Text & Image)", "--yes", "--no-check")
SECRET = "sk-never-to-be-shown"
ALL_PLUGINS = {"LOLLMS_LOAD_PLUGINS": "lollms-binding-llamacpp,lollms-binding-ollama,lollms-binding-openai"}


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """An empty folder."""
    workplace = Workplace(tmp_path)
    for file in sorted(tmp_path.rglob("*"), reverse=True):
        if file.is_file():
            file.unlink()
        else:
            file.rmdir()
    return workplace


def files(place: Workplace) -> dict[str, bytes]:
    """Every file of the configuration."""
    folder = place.root / "lollms_configs"
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_given_no_terminal_when_nothing_is_said_then_it_is_a_clear_error(place: Workplace) -> None:
    for words in ([], ["--yes"], ["--preset", "LlamaCpp CPU (Local Text)"]):
        done = place.lollms("init", *words)

        assert (done.returncode, done.stdout) == (2, "")
        assert "--preset" in done.stderr
        assert "--yes" in done.stderr
    assert files(place) == {}


def test_given_list_when_called_then_every_preset_is_a_line(place: Workplace) -> None:
    assert place.lollms("init", "--list").stdout.splitlines() == [preset.name for preset in PRESETS]


@pytest.mark.parametrize("form", ["yaml", "toml", "json", "db"])
def test_given_a_format_when_set_up_then_files_have_it_and_a_server_starts(
    place: Workplace, form: str
) -> None:
    done = place.lollms(
        "init", *LLAMA, "--format", form, "--set", "defaults.default_context_size=2048",
        "--instance", "my_llamacpp_cpu.n_ctx=1024", env=ALL_PLUGINS,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert files(place).keys() == {f"main_config.{form}", f"bindings/my_llamacpp_cpu.{form}"}
    instance = read_mapping(place.root / "lollms_configs" / "bindings" / f"my_llamacpp_cpu.{form}")
    assert (instance["type"], instance["n_ctx"]) == ("llamacpp_binding", 1024)
    with ServerProcess(root=place.root) as server:
        listed = httpx.get(f"{server.url}/api/v1/list_active_bindings", timeout=30).json()["bindings"]
        defaults = httpx.get(f"{server.url}/api/v1/get_default_bindings", timeout=30).json()["defaults"]
    assert listed["my_llamacpp_cpu"]["n_ctx"] == 1024
    assert defaults["default_context_size"] == 2048


def test_given_a_dry_run_when_set_up_then_the_diff_is_shown_and_nothing_written(place: Workplace) -> None:
    done = place.lollms("init", "--preset", "LlamaCpp CPU (Local Text)", "--dry-run", env=ALL_PLUGINS)

    assert done.returncode == 0, done.stderr
    assert "main_config.yaml (new)" in done.stdout
    assert '  + bindings_map.my_llamacpp_cpu: "llamacpp_binding"' in done.stdout
    assert files(place) == {}


def test_given_the_same_again_when_set_up_then_nothing_changes(place: Workplace) -> None:
    place.lollms("init", *LLAMA, env=ALL_PLUGINS)
    before = files(place)

    done = place.lollms("init", *LLAMA, env=ALL_PLUGINS)

    assert done.returncode == 0
    assert "Nothing changes" in done.stderr
    assert files(place) == before


def test_given_a_plugin_that_is_missing_when_set_up_then_the_package_is_named(place: Workplace) -> None:
    done = place.lollms("init", *OPENAI)

    assert done.returncode == 0, done.stderr
    assert "pip install lollms-binding-openai" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--preset", "LlamaCp CPU"],
            "There is no preset 'LlamaCp CPU'. Did you mean 'LlamaCpp CPU (Local Text)'?",
        ),
        ([*LLAMA, "--set", "server.prot=1"], "server.prot: unknown key; did you mean `port`?"),
        ([*LLAMA, "--set", "server.port=99999"], "must be an integer from 1 to 65535"),
        ([*LLAMA, "--set", "nonsense"], "write it as key=value"),
        (
            [*LLAMA, "--instance", "nobody.host=x"],
            "The preset has no instance 'nobody': it has my_llamacpp_cpu.",
        ),
        ([*LLAMA, "--instance", "my_llamacpp_cpu.n_ctx=many"], "n_ctx"),
    ],
)
def test_given_a_mistake_when_set_up_then_it_is_named_and_nothing_written(
    place: Workplace, words: list[str], said: str
) -> None:
    done = place.lollms("init", "--yes", *words, env=ALL_PLUGINS)

    assert done.returncode == 2
    assert said in done.stderr
    assert files(place) == {}


def test_given_another_format_than_the_present_one_when_set_up_then_it_is_refused(place: Workplace) -> None:
    place.lollms("init", *LLAMA, env=ALL_PLUGINS)

    done = place.lollms("init", *LLAMA, "--format", "toml", env=ALL_PLUGINS)

    assert done.returncode == 2
    assert "lollms config convert toml" in done.stderr


def test_given_an_ollama_host_when_set_up_then_it_is_checked_and_a_failure_hinders_nothing(
    place: Workplace,
) -> None:
    words = ("init", "--preset", "Ollama CPU (Default Text)", "--yes", "--instance")
    with FakeOllama() as fake:
        good = place.lollms(*words, f"my_ollama_cpu.host={fake.url}", env=ALL_PLUGINS)
    bad = place.lollms(*words, "my_ollama_cpu.host=http://127.0.0.1:9", env=ALL_PLUGINS)

    assert (good.returncode, bad.returncode) == (0, 0)
    assert "Ollama answers and has" in good.stderr
    assert "Ollama does not answer" in bad.stderr
    assert b"http://127.0.0.1:9" in files(place)["bindings/my_ollama_cpu.yaml"]


@pytest.mark.parametrize("where", ["file", "environment"])
def test_given_a_secret_when_encrypted_then_no_file_and_no_line_shows_it_and_a_server_reads_it(
    place: Workplace, where: str
) -> None:
    done = place.lollms(
        "init", *OPENAI, "--instance", f"my_openai_api.api_key={SECRET}", "--encrypt", where,
        env=ALL_PLUGINS,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert all(SECRET.encode() not in data for data in files(place).values())
    assert b"enc:" in files(place)["bindings/my_openai_api.yaml"]
    key = done.stdout.split("\n")[-2] if where == "environment" else ""
    assert (where == "environment") != (b"encryption_key" in files(place)["main_config.yaml"])
    with ServerProcess(root=place.root, env={"LOLLMS_ENCRYPTION_KEY": key} if key else {}) as server:
        listed = httpx.get(f"{server.url}/api/v1/list_active_bindings", timeout=30).json()["bindings"]
    assert "my_openai_api" in listed


def test_given_a_wish_for_an_api_key_when_set_up_then_it_is_printed_once_and_opens_the_server(
    place: Workplace,
) -> None:
    done = place.lollms("init", *LLAMA, "--make-api-key", env=ALL_PLUGINS)

    key = done.stdout.splitlines()[-1]
    assert all(key.encode() not in data for data in files(place).values())
    with ServerProcess(root=place.root) as server:
        answers: list[Any] = [
            httpx.get(f"{server.url}/api/v1/list_functions", headers=headers, timeout=30).status_code
            for headers in ({}, {"X-API-Key": key})
        ]
    assert answers == [403, 200]
