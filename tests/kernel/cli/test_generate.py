"""`lollms generate`: only the answer on stdout, exit codes that scripts can rely on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lollms_kernel.testing import ServerProcess

from .commands import LIMIT, Workplace

PNG = b"\x89PNG\r\n\x1a\n"
SLOW = {"chunks": ["one ", "two ", "three "], "stream_chunk_delay": 600}


def received(answer: str) -> dict[str, Any]:
    """What an `echo_system` binding got."""
    facts: dict[str, Any] = json.loads(answer)
    return facts


# --- the question -------------------------------------------------------------------------------------------


def test_the_argument_is_the_question_and_only_the_answer_goes_to_stdout(workplace: Workplace) -> None:
    done = workplace.lollms("generate", "Hello there")

    assert (done.returncode, done.stdout) == (0, "Hello there\n")
    assert "answering without one" in done.stderr


@pytest.mark.parametrize("words", [[], ["-"]])
def test_stdin_is_the_question_without_an_argument(workplace: Workplace, words: list[str]) -> None:
    assert (
        workplace.lollms("generate", *words, stdin="From a pipe, ünïcode\n").stdout
        == "From a pipe, ünïcode\n"
    )


def test_the_text_of_stdin_follows_the_argument(workplace: Workplace) -> None:
    workplace.configure({"told": {"echo_system": True}})

    done = workplace.lollms("generate", "Summarize:", stdin="a long text\n")

    assert received(done.stdout)["prompt"] == "Summarize:\n\na long text"


def test_stdin_that_is_not_text_is_refused(workplace: Workplace) -> None:
    done = workplace.lollms("generate", stdin=b"\xff\xfe\x00")

    assert (done.returncode, done.stdout) == (1, "")
    assert "lollms: stdin is not UTF-8 text" in done.stderr
    assert "--attach" in done.stderr


def test_an_argument_that_is_not_text_is_refused(workplace: Workplace) -> None:
    done = workplace.lollms("generate", os.fsdecode(b"caf\xe9"))

    assert (done.returncode, done.stdout) == (1, "")
    assert "lollms: The command line is not UTF-8 text." in done.stderr


def test_on_a_terminal_a_question_is_needed(workplace: Workplace) -> None:
    with workplace.terminal("generate") as terminal:
        terminal.expect("There is no question")

        assert terminal.wait() == 2


def test_options_reach_the_binding(workplace: Workplace) -> None:
    workplace.configure({"told": {"echo_system": True}})
    parameters = ["temperature=0.25", "seed=7", 'stop=["END"]', "style=vivid"]

    words = [word for parameter in parameters for word in ("--param", parameter)]
    done = workplace.lollms("generate", "Hi", "--system", "Be brief.", "--personality", "lollms", *words)

    facts = received(done.stdout)
    assert facts["system"].startswith("Be brief.\n\n")
    wanted = {"temperature": 0.25, "seed": 7, "stop": ["END"], "style": "vivid"}
    assert facts["parameters"] | wanted == facts["parameters"]


def test_a_file_is_sent_along(workplace: Workplace) -> None:
    workplace.configure({"told": {"echo_system": True, "input_modalities": ["text", "image"]}})
    (workplace.root / "cat.png").write_bytes(PNG)

    done = workplace.lollms("generate", "What is it?", "--attach", "cat.png")

    assert received(done.stdout)["media"] == [
        {"type": "image", "role": "input_image", "mime_type": "image/png", "bytes": len(PNG)}
    ]


def test_a_file_has_the_role_that_is_given(workplace: Workplace) -> None:
    workplace.configure({"told": {"echo_system": True, "input_modalities": ["text", "image"]}})
    for name in ("cat.png", "mask.png", "mask_image=cat.png"):
        (workplace.root / name).write_bytes(PNG)

    words = ("--attach", "cat.png", "--attach", "mask_image=mask.png", "--attach", "mask_image=cat.png")
    done = workplace.lollms("generate", "What is it?", *words)

    assert [item["role"] for item in received(done.stdout)["media"]] == [
        "input_image", "mask_image", "input_image",
    ]  # fmt: skip


def test_a_file_that_is_not_there_is_a_usage_error(workplace: Workplace) -> None:
    done = workplace.lollms("generate", "Hi", "--attach", "mask_image=gone.png")

    assert done.returncode == 2
    assert "'gone.png' does not exist" in done.stderr


def test_previews_are_asked_for_where_there_are_pictures(workplace: Workplace) -> None:
    workplace.configure({"told": {"echo_system": True}})

    assert "previews" not in received(workplace.lollms("generate", "Hi", "--preview").stdout)["parameters"]


def test_a_parameter_without_a_value_is_a_usage_error(workplace: Workplace) -> None:
    done = workplace.lollms("generate", "Hi", "--param", "temperature")

    assert done.returncode == 2
    assert "'temperature' is not of the form key=value" in done.stderr


# --- the answer ---------------------------------------------------------------------------------------------


def test_json_holds_text_thoughts_and_facts(workplace: Workplace) -> None:
    workplace.configure({"thinker": {"chunks": ["<think>Hm", "m.</think>", "Yes."]}})

    answer = json.loads(workplace.lollms("generate", "Well?", "--json").stdout)

    assert answer["output"] == [{"type": "text", "data": "Yes.", "thoughts": "Hmm."}]
    assert answer["finish_reason"] == "stop"
    assert answer["metadata"]["binding"] == "thinker"


def test_thoughts_stay_out_of_a_pipe(workplace: Workplace) -> None:
    workplace.configure({"thinker": {"chunks": ["<think>Hmm.</think>", "Yes."]}})

    done = workplace.lollms("generate", "Well?")

    assert done.stdout == "Yes.\n"
    assert "Hmm" not in done.stderr


@pytest.mark.parametrize("words", [["--no-stream"], ["--output", "answer.txt"]])
def test_a_failed_answer_is_not_written_in_part(workplace: Workplace, words: list[str]) -> None:
    workplace.configure({"fails": {"reply": "one two three", "fail_after": 2}})

    done = workplace.lollms("generate", "Hi", *words)

    assert (done.returncode, done.stdout) == (1, "")
    assert not (workplace.root / "answer.txt").exists()


def test_text_goes_to_a_file(workplace: Workplace) -> None:
    done = workplace.lollms("generate", "Hello file", "--output", "answer.txt")

    assert (done.returncode, done.stdout) == (0, "")
    assert (workplace.root / "answer.txt").read_text() == "Hello file\n"


def test_a_file_in_no_folder_is_refused_before_the_work(workplace: Workplace) -> None:
    workplace.configure({"slow": SLOW})

    done = workplace.lollms("generate", "Hi", "--output", "nowhere/answer.txt")

    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no folder 'nowhere'" in done.stderr


def test_an_image_goes_to_its_file_and_stderr_says_so(workplace: Workplace) -> None:
    workplace.configure({"painter": {"output_modalities": ["image"]}})

    done = workplace.lollms("generate", "A cat", "--type", "tti", "-o", "cat.png")

    assert (done.returncode, done.stdout) == (0, "")
    assert (workplace.root / "cat.png").read_bytes().startswith(PNG)
    assert "cat.png: image/png" in done.stderr


def test_an_image_may_go_into_a_pipe(workplace: Workplace) -> None:
    workplace.configure({"painter": {"output_modalities": ["image"]}})

    done = workplace.lollms("generate", "A cat", "--type", "tti")

    assert done.stdout.encode(errors="surrogateescape").startswith(PNG)


def test_an_image_does_not_go_to_a_terminal(workplace: Workplace) -> None:
    workplace.configure({"painter": {"output_modalities": ["image"]}})

    with workplace.terminal("generate", "A cat", "--type", "tti") as terminal:
        terminal.expect("--output")

        assert terminal.wait() == 2


def test_control_characters_of_an_answer_do_not_reach_a_terminal(workplace: Workplace) -> None:
    workplace.configure({"evil": {"reply": "before\x1b[2Jafter\x07"}})

    with workplace.terminal("generate", "Hi") as terminal:
        seen = terminal.expect("before.*after")
        terminal.wait()

    assert "before[2Jafter" in seen


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_an_unknown_binding_is_one_line_with_the_cure(workplace: Workplace) -> None:
    done = workplace.lollms("generate", "Hi", "--binding", "nobody")

    assert (done.returncode, done.stdout) == (1, "")
    assert "lollms: Binding instance 'nobody' not found. Configured: echo." in done.stderr


def test_an_answer_that_breaks_off_is_exit_code_1(workplace: Workplace) -> None:
    workplace.configure({"fails": {"reply": "one two three", "fail_after": 2}})

    done = workplace.lollms("generate", "Hi")

    assert (done.returncode, done.stdout) == (1, "one two\n")
    assert "lollms: The dummy binding fails after 2 chunks" in done.stderr


def test_a_worker_that_crashes_is_exit_code_1(workplace: Workplace) -> None:
    workplace.configure({"crashes": {"reply": "one two three", "crash_after": 1}})

    done = workplace.lollms("generate", "Hi")

    assert done.returncode == 1
    assert "lollms: " in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_it_with_exit_code_130(workplace: Workplace) -> None:
    workplace.configure({"slow": SLOW})
    running = workplace.start("generate", "Hi")
    assert running.stdout is not None
    assert running.stdout.read(4) == b"one "

    running.send_signal(signal.SIGINT)

    _, errors = running.communicate(timeout=LIMIT)
    assert running.returncode == 130
    assert b"Traceback" not in errors


# --- asking a server ----------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with a key, a binding that echoes, a slow one and a painter; its configuration names its port."""
    instances: dict[str, dict[str, Any]] = {
        "echo": {"type": "dummy_binding"},
        "slow": {"type": "dummy_binding", **SLOW},
        "painter": {"type": "dummy_binding", "output_modalities": ["image"]},
        "thinker": {"type": "dummy_binding", "chunks": ["<think>Hm", "m.</think>", "Yes.\u2028Sure.\x85"]},
        "fails": {"type": "dummy_binding", "reply": "one two three", "fail_after": 2},
    }
    config = {"security": {"allowed_api_keys": ["open-sesame"]}, "defaults": {"ttt_binding": "echo"}}
    process = ServerProcess(config, instances, root=tmp_path / "server")
    file = process.config_dir / "main_config.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "server": {"port": process.port}}))
    with process:
        yield process


def test_the_configured_server_answers_with_the_configured_key(
    server: ServerProcess, workplace: Workplace
) -> None:
    done = workplace.lollms("generate", "Hello server", "--config-dir", str(server.config_dir))

    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello server\n", "")


def test_answers_of_a_server_are_as_those_without(server: ServerProcess, workplace: Workplace) -> None:
    here = ["generate", "Well?", "--url", server.url, "--api-key", "open-sesame", "--json"]

    thought = json.loads(workplace.lollms(*here, "--binding", "thinker").stdout)
    painted = json.loads(workplace.lollms(*here, "--binding", "painter", "--type", "tti").stdout)

    assert thought["output"] == [{"type": "text", "data": "Yes.\u2028Sure.\x85", "thoughts": "Hmm."}]
    assert thought["metadata"]["binding_instance"] == "thinker"
    assert thought["usage"]["completion_tokens"] > 0
    assert [(item["type"], item["mime_type"]) for item in painted["output"]] == [("image", "image/png")]


def test_a_failing_answer_of_a_server_is_exit_code_1(server: ServerProcess, workplace: Workplace) -> None:
    done = workplace.lollms(
        "generate", "Hi", "--binding", "fails", "--url", server.url, env={"LOLLMS_API_KEY": "open-sesame"}
    )

    assert (done.returncode, done.stdout) == (1, "one two\n")
    assert "lollms: The dummy binding fails after 2 chunks" in done.stderr


@pytest.mark.parametrize(("key", "problem"), [(None, "API Key required"), ("guess", "Invalid API Key")])
def test_a_missing_or_wrong_key_is_said_with_the_cure(
    server: ServerProcess, workplace: Workplace, key: str | None, problem: str
) -> None:
    done = workplace.lollms("generate", "Hi", "--url", server.url, env={"LOLLMS_API_KEY": key} if key else {})

    assert (done.returncode, done.stdout) == (1, "")
    assert problem in done.stderr
    assert "LOLLMS_API_KEY" in done.stderr
    assert "guess" not in done.stderr


def test_a_key_that_no_header_can_hold_is_not_shown(server: ServerProcess, workplace: Workplace) -> None:
    done = workplace.lollms("generate", "Hi", "--url", server.url, env={"LOLLMS_API_KEY": "se\ncret"})

    assert done.returncode == 1
    assert "cret" not in done.stderr
    assert "control characters" in done.stderr


def test_an_address_where_nobody_answers_is_an_error(workplace: Workplace) -> None:
    done = workplace.lollms("generate", "Hi", "--url", f"http://127.0.0.1:{workplace.port}")

    assert (done.returncode, done.stdout) == (1, "")
    assert "No lollms server answers at" in done.stderr
    assert "lollms serve" in done.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:9601", "ftp://x", "http://[::1", ""])
def test_a_mistaken_address_is_an_error(workplace: Workplace, url: str) -> None:
    done = workplace.lollms("generate", "Hi", "--url", url)

    assert done.returncode == 1
    assert "is not a server's address" in done.stderr
