"""`lollms chat`: through a pipe and on a terminal, with and without a server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lollms_kernel.testing import ServerProcess

from .commands import LIMIT, Workplace

SLOW = {"chunks": ["one ", "two ", "three "], "stream_chunk_delay": 600}
CTRL_C, CTRL_D = "\x03", "\x04"


def received(lines: str) -> list[dict[str, Any]]:
    """What an `echo_system` binding got, for each answer."""
    return [json.loads(line) for line in lines.splitlines()]


# --- through a pipe -----------------------------------------------------------------------------------------


def test_each_line_is_answered_and_nothing_else_is_printed(workplace: Workplace) -> None:
    done = workplace.lollms("chat", stdin="Hello\n\nHow are you?\n")

    assert (done.returncode, done.stdout) == (0, "Hello\nHow are you?\n")
    assert "\x1b" not in done.stderr


def test_earlier_turns_are_sent_along_until_they_are_cleared(workplace: Workplace) -> None:
    workplace.configure({"told": {"echo_system": True}})

    first, second, third = received(workplace.lollms("chat", stdin="one\ntwo\n/clear\nthree\n").stdout)

    assert [turn["role"] for turn in first["messages"]] == ["user"]
    assert [turn["role"] for turn in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][0]["content"] == "one"
    assert json.loads(second["messages"][1]["content"]) == first
    assert [turn["content"] for turn in third["messages"]] == ["three"]


def test_commands_choose_who_answers(workplace: Workplace) -> None:
    workplace.configure({"echo": {}, "told": {"echo_system": True, "model": "other-model"}})
    lines = ["hi", "/binding told", "/model other-model", "/personality lollms", "/system Be brief.", "Well?"]

    done = workplace.lollms("chat", stdin="\n".join(lines))

    echoed, facts = done.stdout.splitlines()
    assert echoed == "hi"
    assert json.loads(facts)["system"].startswith("Be brief.\n\n")
    assert "The binding is 'told' from now on." in done.stderr
    assert "The model is 'other-model' from now on." in done.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("/personality", "There are: lollms."),
        ("/personality lolms", "There is no personality 'lolms'. Did you mean 'lollms'?"),
        ("/binding", "Now: the default. There are: echo."),
        ("/model nothing-like-it", "There is no model 'nothing-like-it'. There are: dummy-model."),
        ("/system", "No more instructions."),
        ("/save", "/save needs the name of a file."),
        ("/save nowhere/x.md", "nowhere/x.md cannot be written"),
        ("/dance", "There is no command '/dance'; /help lists them."),
        ("/help", "/personality NAME"),
    ],
)
def test_commands_say_what_they_did(workplace: Workplace, typed: str, said: str) -> None:
    done = workplace.lollms("chat", stdin=f"{typed}\n")

    assert (done.returncode, done.stdout) == (0, "")
    assert said in done.stderr


def test_the_conversation_is_saved_as_markdown_or_json(workplace: Workplace) -> None:
    workplace.lollms("chat", stdin="Hello\n/save talk.md\n/save talk.json\n")

    assert (workplace.root / "talk.md").read_text() == "**You:** Hello\n\n**Answer:** Hello\n"
    assert json.loads((workplace.root / "talk.json").read_text()) == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello"},
    ]


def test_quit_leaves_the_rest_unanswered(workplace: Workplace) -> None:
    assert workplace.lollms("chat", stdin="Hello\n/quit\nAgain\n").stdout == "Hello\n"


def test_an_error_ends_it_with_exit_code_1(workplace: Workplace) -> None:
    done = workplace.lollms("chat", "--binding", "nobody", stdin="Hello\nAgain\n")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "lollms: Binding instance 'nobody' not found. Configured: echo."


# --- on a terminal ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_ctrl_c_stops_the_answer_and_the_chat_goes_on(workplace: Workplace, isolation: str) -> None:
    workplace.configure({"slow": {**SLOW, "isolation": isolation}, "echo": {"isolation": isolation}})

    with workplace.terminal("chat") as terminal:
        terminal.expect("> ")
        terminal.type("Count!\n")
        terminal.expect("one ")
        terminal.type(CTRL_C)
        terminal.expect(r"\(stopped\)")
        terminal.expect("> ")
        terminal.type("/binding echo\n")
        terminal.expect("from now on")
        terminal.type("still here\n")
        terminal.expect("still here\r\n.*still here\r\n")
        terminal.expect("> ")
        terminal.settle()
        terminal.type(CTRL_D)

        assert terminal.wait() == 0


def test_ctrl_c_at_the_prompt_says_how_to_leave(workplace: Workplace) -> None:
    with workplace.terminal("chat") as terminal:
        terminal.expect("> ")
        terminal.settle()
        terminal.type(CTRL_C)
        terminal.expect("Ctrl-D or /quit leaves.")
        terminal.expect("> ")
        terminal.type("/quit\n")

        assert terminal.wait() == 0


def test_an_error_is_shown_and_the_chat_goes_on(workplace: Workplace) -> None:
    workplace.configure({"fails": {"reply": "one two", "fail_after": 1}})

    with workplace.terminal("chat") as terminal:
        terminal.expect("> ")
        terminal.type("Hello\n")
        terminal.expect("one\r\nlollms: The dummy binding fails after 1 chunks")
        terminal.expect("> ")
        terminal.type("/quit\n")

        assert terminal.wait() == 0


def test_thoughts_are_shown_dim(workplace: Workplace) -> None:
    workplace.configure({"thinker": {"chunks": ["<think>Hmm.</think>", "Yes."]}})

    with workplace.terminal("chat") as terminal:
        terminal.expect("> ")
        terminal.type("Well?\n")
        seen = terminal.expect(r"Yes\.")

    assert "\x1b[2mHmm.\x1b[0m\r\nYes." in seen


# --- with a server ------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with a binding that never ends and one that echoes."""
    instances: dict[str, dict[str, Any]] = {
        "slow": {"type": "dummy_binding", **SLOW},
        "echo": {"type": "dummy_binding", "model": "parrot"},
    }
    with ServerProcess({"defaults": {"ttt_binding": "slow"}}, instances, root=tmp_path / "server") as running:
        yield running


def test_ctrl_c_stops_the_work_on_the_server(server: ServerProcess, workplace: Workplace) -> None:
    with workplace.terminal("chat", "--url", server.url) as terminal:
        terminal.expect("> ")
        terminal.type("Count!\n")
        terminal.expect("one ")
        terminal.type(CTRL_C)
        terminal.expect(r"\(stopped\)")
        deadline = time.monotonic() + LIMIT
        while "cancelled" not in server.log():
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.05)
        terminal.expect("> ")
        terminal.settle()
        terminal.type(CTRL_D)

        assert terminal.wait() == 0


def test_commands_know_what_the_server_has(server: ServerProcess, workplace: Workplace) -> None:
    lines = ["/binding", "/binding echo", "/model", "/personality lollms", "Hello"]

    done = workplace.lollms("chat", "--url", server.url, stdin="\n".join(lines))

    assert done.stdout == "Hello\n"
    assert "There are: echo, slow." in done.stderr
    assert "There are: parrot." in done.stderr
    assert "The personality is 'lollms' from now on." in done.stderr
