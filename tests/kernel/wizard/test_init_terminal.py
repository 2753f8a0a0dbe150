"""`lollms init` on a terminal, as a person uses it: arrows, Enter, typing, Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.fakes.ollama import FakeOllama

from ..cli.commands import Terminal, Workplace
from .test_init_scripted import ALL_PLUGINS, SECRET, files

DOWN, UP, ENTER, CLEAR_LINE, CTRL_C = "\x1b[B", "\x1b[A", "\r", "\x15", "\x03"

Start = Callable[..., Terminal]


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A folder without configuration."""
    workplace = Workplace(tmp_path)
    (tmp_path / "lollms_configs" / "bindings" / "echo.yaml").unlink()
    (tmp_path / "lollms_configs" / "main_config.yaml").unlink()
    return workplace


@pytest.fixture
def start(place: Workplace) -> Start:
    """Start the wizard on a terminal of its own."""

    def run(*words: str) -> Terminal:
        # the terminal of the tests does not tell where its cursor is, as those of people do
        env = place.environment({**ALL_PLUGINS, "PROMPT_TOOLKIT_NO_CPR": "1"})
        return Terminal(("init", *words), place.root, env)

    return run


def test_given_a_new_user_when_only_enter_is_pressed_then_a_server_starts_that_answers(
    place: Workplace, start: Start
) -> None:
    with start() as wizard:
        seen = wizard.expect("What shall answer")
        for question in ("folder of the models", "context size", "Port of the server", "need an API key"):
            wizard.type(ENTER)
            seen += wizard.expect(question)
        wizard.type(ENTER)
        shown = wizard.expect("Write these files")
        wizard.type(ENTER)
        wizard.expect("Start it: lollms serve")
        assert wizard.wait() == 0

    assert "\x1b[32m" in shown, "what comes is green"
    assert "bindings_map.my_llamacpp_cpu" in shown
    with ServerProcess(root=place.root) as server:
        hello = {"input_data": [{"type": "text", "role": "user_prompt", "data": "Hello!"}]}
        answer = httpx.post(f"{server.url}/api/v1/generate", json=hello, timeout=120)
    assert answer.status_code == 200, answer.text


def test_given_an_ollama_server_when_its_host_is_typed_then_it_is_checked_and_offers_its_models(
    place: Workplace, start: Start
) -> None:
    with FakeOllama() as fake, start("--preset", "Ollama CPU (Default Text)") as wizard:
        wizard.expect("where does Ollama listen")
        wizard.type(CLEAR_LINE + fake.url + ENTER)
        wizard.expect("Ollama answers and has")
        wizard.expect("which model by default")
        wizard.type(DOWN + ENTER)
        wizard.expect("Port of the server")
        wizard.type(CLEAR_LINE + "70000" + ENTER)
        wizard.expect("A number from 1 to 65535")
        wizard.type(CLEAR_LINE + "9777" + ENTER)
        wizard.expect("need an API key")
        wizard.type(ENTER)
        wizard.expect("Write these files")
        wizard.type("y")
        wizard.expect("Start it")
        assert wizard.wait() == 0
        second = list(fake.models)[1]

    instance = yaml.safe_load(files(place)["bindings/my_ollama_cpu.yaml"])
    assert (instance["host"], instance["default_model"]) == (fake.url, second)
    assert yaml.safe_load(files(place)["main_config.yaml"])["server"]["port"] == 9777


def test_given_arrows_when_pressed_then_the_neighbouring_preset_is_chosen(
    place: Workplace, start: Start
) -> None:
    with start("--no-check") as wizard:
        wizard.expect("What shall answer")
        wizard.type(DOWN + ENTER)
        for question in ("folder of the models", "context size", "Port of the server", "need an API key"):
            wizard.expect(question)
            wizard.type(ENTER)
        wizard.expect("Write these files")
        wizard.type(ENTER)
        assert wizard.wait() == 0

    assert "bindings/my_llamacpp_gpu.yaml" in files(place)


def test_given_a_secret_when_typed_then_it_is_never_on_the_screen_and_encrypted_if_wished(
    place: Workplace, start: Start
) -> None:
    with start("--preset", "OpenAI API (Text & Image)", "--no-check") as wizard:
        screen = wizard.expect("OpenAI API key")
        wizard.type(SECRET + ENTER)
        screen += wizard.expect("Port of the server")
        wizard.type(ENTER)
        screen += wizard.expect("need an API key")
        wizard.type(DOWN + ENTER)
        screen += wizard.expect("be encrypted")
        wizard.type(DOWN + ENTER)
        screen += wizard.expect("Write these files")
        wizard.type(ENTER)
        screen += wizard.expect("This is the encryption key")
        screen += wizard.expect("This is the API key")
        assert wizard.wait() == 0

    assert SECRET not in screen
    assert all(SECRET.encode() not in data for data in files(place).values())
    for instance in ("my_openai_api", "my_dalle3_api"):  # one key for both, asked for once
        assert b"enc:" in files(place)[f"bindings/{instance}.yaml"]


@pytest.mark.parametrize("after", ["What shall answer", "context size", "Write these files"])
def test_given_ctrl_c_at_any_question_when_pressed_then_nothing_is_written(
    place: Workplace, start: Start, after: str
) -> None:
    questions = [
        "What shall answer",
        "folder of the models",
        "context size",
        "Port",
        "need an API",
        "Write these",
    ]
    with start() as wizard:
        for question in questions:
            wizard.expect(question)
            if after.startswith(question):
                break
            wizard.type(ENTER)
        wizard.type(CTRL_C)
        assert wizard.wait() == 130

    assert files(place) == {}


def test_given_no_when_asked_to_write_then_nothing_is_written(place: Workplace, start: Start) -> None:
    with start("--preset", "Ollama CPU (Default Text)", "--no-check") as wizard:
        for question in ("Ollama listen", "Port of the server", "need an API key"):
            wizard.expect(question)
            wizard.type(ENTER)
        wizard.expect("Write these files")
        wizard.type("n")
        wizard.expect("Nothing was written")
        assert wizard.wait() == 0

    assert files(place) == {}


@pytest.mark.parametrize("wish", ["add", "start over", "leave"])
def test_given_a_configuration_when_set_up_again_then_it_is_asked_about_first(
    place: Workplace, start: Start, wish: str
) -> None:
    place.configure({"echo": {"reply": "mine"}})
    before = files(place)
    steps = ["add", "start over", "leave"].index(wish)

    with start("--preset", "LlamaCpp CPU (Local Text)") as wizard:
        wizard.expect("There is a configuration in")
        wizard.type(DOWN * steps + ENTER)
        if wish != "leave":
            wizard.expect("folder of the models")
            wizard.type(ENTER)
            wizard.expect("context size")
            wizard.type(ENTER)
        if wish == "start over":
            wizard.expect("Port of the server")
            wizard.type(ENTER)
            wizard.expect("need an API key")
            wizard.type(ENTER)
        if wish != "leave":
            wizard.expect("Write these files")
            wizard.type(ENTER)
        assert wizard.wait() == 0

    if wish == "leave":
        assert files(place) == before
        return
    main = yaml.safe_load(files(place)["main_config.yaml"])
    assert ("echo" in main["bindings_map"]) == (wish == "add")
    assert main["defaults"]["ttt_binding"] == "my_llamacpp_cpu"
    assert files(place)["main_config.yaml.bak"] == before["main_config.yaml"]
