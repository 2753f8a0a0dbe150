"""Instances change while answers run: over the admin routes and with `lollms bindings`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lollms_kernel.testing import ServerProcess

LIMIT = 60.0
WORDS = 40
SLOW = {
    "type": "dummy_binding",
    "chunks": ["word "] * WORDS,
    "stream_chunk_delay": 0.05,
    "isolation": "process",
}
INSTANCES: dict[str, dict[str, Any]] = {
    "slow": SLOW,
    "other": {"type": "dummy_binding", "reply": "other", "isolation": "process"},
    "echo": {"type": "dummy_binding"},
}
CONFIG = {"defaults": {"ttt_binding": "echo"}}
DUMMY = {"type": "dummy_binding"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with a slow instance in a worker, another one, and an echo."""
    with ServerProcess(CONFIG, INSTANCES, root=tmp_path) as server:
        yield server


def admin(server: ServerProcess, method: str, path: str, **options: Any) -> dict[str, Any]:
    """What an admin route answers."""
    response = httpx.request(method, f"{server.url}/api/v1/admin/{path}", timeout=LIMIT, **options)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def body(binding: str, **fields: Any) -> dict[str, Any]:
    """A request that a binding shall answer."""
    item = {"type": "text", "role": "user_prompt", "data": "hi"}
    return {"input_data": [item], "binding_name": binding, **fields}


def ask(server: ServerProcess, binding: str) -> httpx.Response:
    """The whole answer of a binding."""
    return httpx.post(f"{server.url}/api/v1/generate", json=body(binding), timeout=LIMIT)


@contextmanager
def streaming(server: ServerProcess, binding: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of an answer, of which the first one has arrived."""
    with httpx.stream(
        "POST", f"{server.url}/api/v1/generate", json=body(binding, stream=True), timeout=LIMIT
    ) as response:
        events = (json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line)
        assert next(events)["type"] == "chunk"
        yield events


def pid_of(server: ServerProcess, name: str) -> int:
    """The worker process of an instance."""
    pid = admin(server, "GET", f"instances/{name}")["pid"]
    assert isinstance(pid, int)
    return pid


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} still runs")


# --- what a change does not concern ---------------------------------------------------------------------------


def test_given_a_running_answer_when_others_are_added_changed_and_removed_then_it_goes_on(
    server: ServerProcess,
) -> None:
    pid = pid_of(server, "slow")
    with streaming(server, "slow") as events:
        admin(server, "PUT", "instances/new", json={**DUMMY, "settings": {"reply": "new"}})
        admin(server, "PUT", "instances/echo", json={**DUMMY, "settings": {"reply": "changed"}})
        admin(server, "DELETE", "instances/other")
        rest = list(events)

    assert [event["type"] for event in rest] == ["chunk"] * (WORDS - 1) + ["final"]
    assert pid_of(server, "slow") == pid
    assert ask(server, "new").json()["output"][0]["data"] == "new"
    assert ask(server, "echo").json()["output"][0]["data"] == "changed"
    assert ask(server, "other").status_code == 404


# --- what it concerns -------------------------------------------------------------------------------------------


def test_given_a_running_answer_when_its_instance_changes_then_it_ends_on_the_old_one(
    server: ServerProcess,
) -> None:
    old = pid_of(server, "slow")
    with streaming(server, "slow") as events:
        settings = {"reply": "quick now", "isolation": "process"}
        admin(server, "PUT", "instances/slow", json={**DUMMY, "settings": settings})
        answer = ask(server, "slow").json()["output"][0]["data"]
        os.kill(old, 0)  # the old worker still serves
        rest = list(events)

    assert answer == "quick now"
    assert [event["type"] for event in rest] == ["chunk"] * (WORDS - 1) + ["final"]
    assert pid_of(server, "slow") != old
    wait_until_gone(old)


def test_given_a_running_answer_when_its_instance_is_removed_then_it_ends_and_new_ones_are_refused(
    server: ServerProcess,
) -> None:
    old = pid_of(server, "slow")
    with streaming(server, "slow") as events:
        admin(server, "DELETE", "instances/slow")
        refused = ask(server, "slow")
        rest = list(events)

    assert refused.status_code == 404
    assert rest[-1]["type"] == "final"
    wait_until_gone(old)


def test_given_a_running_answer_when_the_grace_is_over_then_it_is_told_and_the_worker_ends(
    server: ServerProcess,
) -> None:
    old = pid_of(server, "slow")
    with streaming(server, "slow") as events:
        admin(server, "DELETE", "instances/slow", params={"grace": 0})
        rest = list(events)

    assert rest[-1]["type"] == "error"
    assert "changed or removed" in rest[-1]["content"]
    assert rest[-1]["metadata"]["code"] == "unavailable"
    wait_until_gone(old)


def test_given_a_running_answer_when_a_change_is_refused_then_nothing_is_touched(
    server: ServerProcess,
) -> None:
    pid = pid_of(server, "slow")
    with streaming(server, "slow") as events:
        wrong = httpx.put(
            f"{server.url}/api/v1/admin/instances/slow",
            json={**DUMMY, "settings": {"delay": "long"}},
            timeout=LIMIT,
        )
        rest = list(events)

    assert wrong.status_code == 422
    assert rest[-1]["type"] == "final"
    assert pid_of(server, "slow") == pid


def test_given_many_changes_at_once_when_made_then_all_of_them_hold(server: ServerProcess) -> None:
    names = [f"n{number}" for number in range(8)]

    def put(name: str) -> dict[str, Any]:
        return admin(server, "PUT", f"instances/{name}", json={**DUMMY, "settings": {"reply": name}})

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(put, names))

    main = yaml.safe_load((server.config_dir / "main_config.yaml").read_text())
    assert main["bindings_map"].keys() == {*INSTANCES, *names}
    assert [ask(server, name).json()["output"][0]["data"] for name in names] == names


def test_given_no_configuration_when_an_instance_is_added_then_it_takes_the_place_of_the_built_in_one(
    tmp_path: Path,
) -> None:
    with ServerProcess(root=tmp_path) as server:
        before = set(admin(server, "GET", "instances")["instances"])
        done = admin(server, "PUT", "instances/mine", json={**DUMMY, "settings": {"reply": "mine"}})
        answer = httpx.post(f"{server.url}/api/v1/generate", json=body("mine"), timeout=LIMIT).json()[
            "output"
        ][0]["data"]
        back = admin(server, "DELETE", "instances/mine")

        assert set(done["result"]["instances"]["removed"]) == before
        assert answer == "mine"
        assert set(back["result"]["instances"]["added"]) == before


# --- the command ------------------------------------------------------------------------------------------------


def lollms(server: ServerProcess, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command beside the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOLLMS_")}
    return subprocess.run(
        [sys.executable, "-m", "lollms_kernel", *words],
        cwd=server.root,
        env={**kept, "LOLLMS_PORT": str(server.port)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def test_given_a_running_server_when_bindings_are_added_edited_and_removed_then_it_follows(
    server: ServerProcess,
) -> None:
    pid = pid_of(server, "slow")

    added = lollms(
        server, "bindings", "add", "new", "dummy_binding", "--set", "reply=one", "--default", "ttt"
    )
    first = ask(server, "new").json()["output"][0]["data"]
    edited = lollms(server, "bindings", "edit", "new", "--set", "reply=two")
    second = ask(server, "new").json()["output"][0]["data"]
    tested = lollms(server, "bindings", "test", "new")
    removed = lollms(server, "bindings", "remove", "new")

    assert [done.returncode for done in (added, edited, tested, removed)] == [0, 0, 0, 0], added.stderr
    assert (first, second) == ("one", "two")
    assert '  - reply: "one"\n  + reply: "two"' in edited.stdout
    assert "new works: it names 1 model" in tested.stdout
    assert ask(server, "new").status_code == 404
    assert pid_of(server, "slow") == pid


def test_given_a_server_that_refuses_when_edited_then_the_files_are_as_before(server: ServerProcess) -> None:
    file = server.config_dir / "bindings" / "other.yaml"
    (server.config_dir / "bindings" / "echo.yaml").write_text("type: dummy_binding\nreply: [broken")
    before = file.read_bytes()

    done = lollms(server, "bindings", "edit", "other", "--set", "reply=new")

    assert done.returncode == 1
    assert "Nothing was changed: the files are as they were." in done.stderr
    assert "echo.yaml" in done.stderr
    assert file.read_bytes() == before


def test_given_a_file_edited_by_hand_when_reloaded_then_the_server_follows(server: ServerProcess) -> None:
    (server.config_dir / "bindings" / "echo.yaml").write_text("type: dummy_binding\nreply: by hand\n")

    done = lollms(server, "bindings", "reload")

    assert (done.returncode, done.stderr) == (0, "changed: echo\n")
    assert ask(server, "echo").json()["output"][0]["data"] == "by hand"


def test_given_a_server_with_keys_when_none_is_at_hand_then_nothing_is_written(tmp_path: Path) -> None:
    hashed = "sha256:4c806362b613f7496abf284146efd31da90e4b16169fe001841ca17290f427c4"  # of "hunter2"... never sent
    security = {"allowed_api_keys": [{"name": "ops", "hash": hashed}]}
    with ServerProcess({**CONFIG, "security": security}, INSTANCES, root=tmp_path) as server:
        before = (server.config_dir / "bindings" / "echo.yaml").read_bytes()

        done = lollms(server, "bindings", "edit", "echo", "--set", "reply=x")

        assert done.returncode == 1
        assert "LOLLMS_API_KEY" in done.stderr
        assert (server.config_dir / "bindings" / "echo.yaml").read_bytes() == before


def test_given_a_secret_when_asked_for_then_it_comes_from_stdin_and_is_never_shown(
    server: ServerProcess,
) -> None:
    done = lollms(
        server, "bindings", "add", "cloud", "openai_binding", "--set", "base_url=http://127.0.0.1:9/v1",
        "--secret", "api_key", stdin="sk-never-to-be-shown\n",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert '+ api_key: "***"' in done.stdout
    assert "sk-never" not in done.stdout + done.stderr + server.log()
    assert b"sk-never" in (server.config_dir / "bindings" / "cloud.yaml").read_bytes()


def test_given_no_server_when_edited_then_only_the_files_change(tmp_path: Path) -> None:
    config_dir = tmp_path / "lollms_configs"
    server = ServerProcess(CONFIG, INSTANCES, root=tmp_path)

    edited = lollms(server, "bindings", "edit", "echo", "--set", "reply=x", "--unset", "type")
    wrong = lollms(server, "bindings", "edit", "echo", "--set", "rely=x")
    dry = lollms(server, "bindings", "remove", "other", "--dry-run")
    tested = lollms(server, "bindings", "test", "other")
    unknown = lollms(server, "bindings", "add", "x", "dumy_binding")

    assert edited.returncode == 0, edited.stderr
    assert "counts at the next start" in edited.stderr
    assert yaml.safe_load((config_dir / "bindings" / "echo.yaml").read_text()) == {"reply": "x"}
    assert wrong.returncode == 2
    assert "did you mean `reply`?" in wrong.stderr
    assert "bindings/other.yaml (removed)" in dry.stdout
    assert (config_dir / "bindings" / "other.yaml").exists()
    assert "other works: it names 1 model" in tested.stdout
    assert "Did you mean `dummy_binding`?" in unknown.stderr
