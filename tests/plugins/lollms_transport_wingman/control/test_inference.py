"""Models that run for real: from the control API to tokens, over restarts, and their ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lollms_kernel.testing.fakes.hub import FakeHub
from lollms_kernel.testing.server_process import free_port

from .alphabet import alphabet
from .conftest import FILE, KEY, LIMIT, REPO, Wingman

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
OTHER = "alpha.Q8_0.gguf"
WINGMAN_ITEM = {
    "isa", "alias", "status", "modelRepo", "filePath", "address", "port", "contextSize", "gpuLayers", "chatTemplate",
    "force", "error", "created", "updated",
}  # fmt: skip


def chat(port: int) -> str:
    """What the model that runs says."""
    question = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=question, timeout=LIMIT)
    assert answer.status_code == 200, answer.text
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


def start(wingman: Wingman, **query: Any) -> httpx.Response:
    return wingman.get("/api/inference/start", **{"alias": FILE, **KEY, **query})


@pytest.fixture(scope="module")
def loaded(wingman: Wingman) -> Wingman:
    wingman.download()
    return wingman


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """No model is left for the next test."""
    yield
    if "loaded" in request.fixturenames:
        running: Wingman = request.getfixturevalue("loaded")
        for item in running.get("/api/inference").json()["WingmanItems"]:
            running.get("/api/inference/reset", alias=item["alias"])


def test_a_model_from_its_start_to_its_reset(loaded: Wingman) -> None:
    started, again = start(loaded), start(loaded)

    assert (started.status_code, again.status_code) == (202, 208)
    item = started.json()
    assert item.keys() == WINGMAN_ITEM
    assert (item["status"], item["alias"], item["address"], item["port"]) == (
        "queued",
        FILE,
        "localhost",
        loaded.inference_port,
    )
    assert (item["force"], item["gpuLayers"], item["contextSize"], item["chatTemplate"]) == (
        False,
        -1,
        0,
        "chatml",
    )
    loaded.until_item("inferring")
    assert chat(loaded.inference_port) == ALPHABET
    assert loaded.get("/api/inference").json() == {"WingmanItems": [loaded.item()]}
    metadata = loaded.get("/api/model/metadata").json()
    assert metadata["chatTemplateInfo"]["alias"] == "chatml"
    assert metadata["metadata"]["general.name"] == "Alphabet"
    assert loaded.get("/api/model/metadata", **KEY).json() == metadata

    stopped = loaded.get("/api/inference/stop", alias=FILE)

    assert (stopped.status_code, stopped.json()["status"]) == (200, "complete")
    assert loaded.get("/api/inference/stop", alias=FILE).status_code == 200, "once more does no harm"
    reset = loaded.get("/api/inference/reset", alias=FILE)
    assert (reset.status_code, reset.json()["status"]) == (200, "complete")
    assert loaded.get("/api/inference/status").json() == []
    assert loaded.get("/api/inference/reset", alias=FILE).status_code == 404


def test_a_second_model_takes_the_place_of_the_first(loaded: Wingman) -> None:
    start(loaded, alias="one")
    loaded.until_item("inferring", alias="one")

    assert start(loaded, alias="two").status_code == 202

    loaded.until_item("inferring", alias="two")
    one = loaded.item("one")
    assert one is not None
    assert one["status"] == "complete"


def test_a_port_of_its_own_and_its_context(loaded: Wingman) -> None:
    port = free_port()
    start(loaded, port=port, address="127.0.0.1", contextSize=64, gpuLayers=0)
    item = loaded.until_item("inferring")

    assert (item["port"], item["address"], item["contextSize"], item["gpuLayers"]) == (
        port,
        "127.0.0.1",
        64,
        0,
    )
    assert chat(port) == ALPHABET
    instances = httpx.get(f"{loaded.server.url}/api/v1/admin/instances").json()["instances"]
    assert instances["wingman"]["settings"]["n_ctx"] == 64
    loaded.get("/api/inference/stop", alias=FILE)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")


def test_a_template_of_its_own(loaded: Wingman) -> None:
    start(loaded, chatTemplate="{{ messages[-1].content }}!")
    loaded.until_item("inferring")

    assert chat(loaded.inference_port) == "€"


def test_an_address_that_others_reach_is_refused(loaded: Wingman) -> None:
    start(loaded, address="0.0.0.0", port=free_port())

    assert "no API key is set" in loaded.until_item("error")["error"]


def test_a_port_that_is_taken_is_an_error_that_stays_until_it_is_reset(loaded: Wingman) -> None:
    start(loaded, port=loaded.control_port)

    item = loaded.until_item("error")
    assert item["error"].startswith(
        "Wingman exited with error code 1024. There was an error loading the model."
    )
    assert "Cannot listen" in item["error"]
    (model,) = loaded.get("/api/models").json()["models"]
    assert [entry["hasError"] for entry in model["items"]] == [True, False]
    assert loaded.get("/api/inference/reset", alias=FILE).json()["status"] == "error"
    assert loaded.item() is None


@pytest.mark.parametrize(
    "query",
    [
        {"modelRepo": ""},
        {"filePath": ""},
        {"port": "many"},
        {"port": "0"},
        {"port": "65536"},
        {"port": "9" * 400},
        {"contextSize": "-1"},
        {"gpuLayers": "all"},
        {"alias": "x" * 1000},
        {"address": "a\nb"},
    ],
)
def test_impossible_parameters_are_422(loaded: Wingman, query: dict[str, str]) -> None:
    answer = start(loaded, **query)

    assert (answer.status_code, answer.json()) == (422, {})


def test_without_a_complete_download_it_is_404(loaded: Wingman) -> None:
    for key in ({"filePath": OTHER}, {"modelRepo": "no/such"}, {"filePath": "../../x"}):
        answer = start(loaded, **key)
        assert (answer.status_code, answer.json()) == (404, {})
    assert loaded.get("/api/inference/stop").status_code == 422
    assert loaded.get("/api/inference/stop", alias="nobody").status_code == 404
    assert loaded.get("/api/inference", alias="nobody").json() == {"WingmanItems": []}
    assert loaded.get("/api/model/metadata", modelRepo=REPO, filePath=OTHER).status_code == 404
    assert loaded.get("/api/model/metadata", modelRepo=REPO).status_code == 422


def test_a_download_is_usable_by_name_everywhere_at_once(loaded: Wingman) -> None:
    name = f"{REPO}/{FILE}"
    listed = httpx.get(f"{loaded.server.url}/v1/models", timeout=LIMIT).json()["data"]

    assert name in [entry["id"] for entry in listed]
    question = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
    answer = httpx.post(f"{loaded.server.url}/v1/chat/completions", json=question, timeout=LIMIT)
    assert answer.json()["choices"][0]["message"]["content"] == ALPHABET
    rest = {
        "input_data": [{"type": "text", "role": "user_prompt", "data": "Hi"}],
        "model_name": f"{REPO}:Q4_K_M",
    }
    spoken = httpx.post(f"{loaded.server.url}/api/v1/generate", json=rest, timeout=LIMIT)
    assert spoken.json()["output"][0]["data"] == ALPHABET


def lollms(wingman: Wingman, *arguments: str) -> subprocess.CompletedProcess[str]:
    place = ["--config-dir", str(wingman.server.config_dir), "--url", wingman.server.url]
    command = [sys.executable, "-m", "lollms_kernel", *arguments, *place]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)


def test_ps_and_stop_on_the_command_line(loaded: Wingman) -> None:
    start(loaded)
    loaded.until_item("inferring")

    listed = lollms(loaded, "ps", "--json")
    assert listed.returncode == 0, listed.stderr
    told = json.loads(listed.stdout)
    assert ("wingman", f"{REPO}/{FILE}") in [(row["instance"], row["model"]) for row in told["models"]]
    assert told["downloads"] == []
    missing = lollms(loaded, "stop", "nothing")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "No model 'nothing' is in memory" in missing.stderr
    stopped = lollms(loaded, "stop", "wingman")

    assert stopped.stdout == "stopped wingman\n", stopped.stderr
    loaded.until_item("complete")


# --- restarts and memory, each with a server of its own --------------------------------------------------------


def test_over_restarts(hub: FakeHub, tmp_path: Path) -> None:
    with Wingman(tmp_path, hub) as server:
        server.download()
        start(server)
        server.until_item("inferring")
        start(server, alias="failing", port=server.control_port)
        server.until_item("error", alias="failing")
        start(server)
        server.until_item("inferring")

        server.server.stop()
        server.restart()
        item = server.until_item("inferring", "error")
        assert item["status"] == "inferring", item["error"]
        assert chat(server.inference_port) == ALPHABET
        failing = server.item("failing")
        assert failing is not None
        assert failing["status"] == "error", "errors stay until they are reset"

        process = server.server._process
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
        server.restart()
        item = server.until_item("error")
        assert item["error"] == "The system ran out of memory while running the AI model."

        (server.home / "wingman.exit").touch()
        process = server.server._process
        assert process is not None
        assert process.wait(LIMIT) == 0, "a file ends the server"


def test_a_context_that_no_memory_can_hold_is_a_clear_error(tmp_path: Path) -> None:
    with FakeHub() as hub:
        hub.add(REPO, {FILE: alphabet(tmp_path / "huge.gguf", n_ctx=2**31 - 1)})
        with Wingman(tmp_path / "wingman", hub) as server:
            server.download()
            start(server, contextSize=2**27)
            item = server.until_item("error", "inferring")

            assert item["status"] == "error"
            assert "There is not enough memory" in item["error"], item["error"]
            assert server.get("/api/downloads").status_code == 200, "the server goes on"
