"""The WebSocket, for clients of both generations: the frames of the original's page, and tagged events."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .conftest import FILE, KEY, LIMIT, REPO, Wingman

REFERENCE = [
    "WingmanService",
    "DownloadService",
    "WingmanItems",
    "DownloadItems",
    "currentWingmanInferenceItem",
]
APP_ITEM = {"isa", "status", "error", "created", "updated"}
TIMINGS = {
    "timestamp", "load_time", "sample_time", "sample_count", "sample_per_token_ms", "sample_per_second", "total_time",
    "prompt_count", "prompt_ms", "prompt_per_token_ms", "prompt_per_second", "predicted_count", "predicted_ms",
    "predicted_per_token_ms", "predicted_per_second",
}  # fmt: skip


@contextlib.contextmanager
def listening(
    wingman: Wingman, path: str = "/", main_port: bool = False, **headers: str
) -> Iterator[ClientConnection]:
    port = wingman.server.port if main_port else wingman.control_port
    url = f"ws://127.0.0.1:{port}{path}"
    with connect(url, additional_headers=headers, open_timeout=LIMIT, compression=None) as client:
        yield client


def frames(client: ClientConnection) -> Iterator[dict[str, Any]]:
    while True:
        yield json.loads(client.recv(timeout=LIMIT))


def until(client: ClientConnection, key: str, **fields: Any) -> Any:
    """The content of the first frame with this key, or of this event, that has these fields."""
    for frame in frames(client):
        content = frame.get("data", frame) if frame.get("event") == key else frame.get(key)
        if content is not None and (not fields or fields.items() <= dict(content).items()):
            return content
    raise AssertionError("unreachable")


class Page:
    """What the original's page does with frames: it keeps what it knows and ignores the rest."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def receive(self, text: str) -> None:
        frame = json.loads(text)
        for key in (*REFERENCE, "meta", "system", "tensors", "timings"):
            if key in frame:
                self.known[key] = frame[key]
        for value in self.known.get("timings", {}).values():
            assert value is None or isinstance(value, int | float)
            round(value or 0)


@pytest.mark.parametrize(("path", "main_port"), [("/", False), ("/any/path", False), ("/wingman/", True)])
def test_the_first_frames_are_there_at_once(wingman: Wingman, path: str, main_port: bool) -> None:
    with listening(wingman, path, main_port) as client:
        started = time.monotonic()
        first = [json.loads(client.recv(timeout=LIMIT)) for _ in REFERENCE]
        assert time.monotonic() - started < LIMIT / 2

    assert [next(iter(frame)) for frame in first] == REFERENCE
    assert all(len(frame) == 1 for frame in first), "the key says the type, and there is nothing else"
    service, downloads, items, _, current = (next(iter(frame.values())) for frame in first)
    assert service.keys() >= APP_ITEM | {"alias", "modelRepo", "filePath", "force"}
    assert downloads.keys() == APP_ITEM | {"currentDownload"}
    assert (service["status"], downloads["status"], items, current) == ("ready", "ready", [], {})


def test_frames_go_on_every_second(wingman: Wingman) -> None:
    with listening(wingman) as client:
        for _ in range(3):
            until(client, "WingmanService")


def test_a_page_of_the_first_generation_follows_a_model(wingman: Wingman) -> None:
    wingman.download()
    page = Page()
    with listening(wingman) as client:
        wingman.get("/api/inference/start", alias=FILE, **KEY)
        seen = set()
        for text in client:
            page.receive(str(text))
            seen.add(page.known.get("currentWingmanInferenceItem", {}).get("status"))
            if "timings" in page.known:
                break
        current = page.known["currentWingmanInferenceItem"]
        assert current["alias"] == FILE
        assert current["filePath"] == FILE, "as the page compares it"
        assert current["status"] == "inferring"
        assert page.known["timings"].keys() == TIMINGS
        assert page.known["meta"]["general.name"] == "Alphabet"
        assert page.known["tensors"]["F32"] > 0
        assert page.known["system"]["model_alias"] == FILE

        wingman.get("/api/inference/stop", alias=FILE)
        for text in client:
            page.receive(str(text))
            if page.known["currentWingmanInferenceItem"] == {}:
                break
        assert [item["status"] for item in page.known["WingmanItems"]] == ["complete"]
        wingman.get("/api/inference/reset", alias=FILE)
        for text in client:
            page.receive(str(text))
            if page.known["WingmanItems"] == []:
                break


def test_events_of_the_second_generation_tell_every_change(wingman: Wingman) -> None:
    wingman.get("/api/downloads/reset", **KEY)
    wingman.hub.storage.frame_delay = 0.02
    with listening(wingman) as client:
        until(client, "DownloadItems")
        wingman.get("/api/downloads/enqueue", **KEY)
        until(client, "DownloadItems")
        going = until(client, "download_status", status="downloading")
        assert going["isa"] == "DownloadItem"
        busy = until(client, "DownloadService", status="downloading")
        assert busy["currentDownload"]["filePath"] == FILE
        wingman.hub.storage.frame_delay = 0.0
        assert until(client, "download_status", status="complete")["progress"] == 100.0

        wingman.get("/api/inference/start", alias="events", **KEY)
        seen = [until(client, "inference_status")["status"] for _ in range(3)]
        assert seen == ["queued", "preparing", "inferring"]
        metrics = until(client, "metrics")
        assert metrics["alias"] == "events"
        wingman.get("/api/inference/stop", alias="events")
        assert [until(client, "inference_status")["status"] for _ in range(2)] == ["cancelling", "complete"]
        wingman.get("/api/inference/reset", alias="events")


def test_what_a_client_says_means_nothing_and_does_no_harm(wingman: Wingman) -> None:
    with listening(wingman) as client:
        for said in ("hello", "SHUTDOWN", '{"event":"shutdown"}', b"\xff\x00", ""):
            client.send(said)
        until(client, "WingmanService")
    with listening(wingman) as client:
        client.send("x" * 300_000)
        with pytest.raises(ConnectionClosed):
            for _ in frames(client):
                pass
    assert wingman.get("/api/health").status_code == 200


def test_a_page_of_another_machine_is_refused(wingman: Wingman) -> None:
    with pytest.raises(InvalidStatus), listening(wingman, origin="https://example.org"):
        pass
    with listening(wingman, origin="http://localhost:3000") as client:
        until(client, "WingmanService")


def test_a_client_that_does_not_read_is_let_go_and_others_are_not_hurt(wingman: Wingman) -> None:
    many = {f"f{number}-{'x' * 150}.Q4_0.gguf": b"" for number in range(120)}
    wingman.hub.add("maker/many-GGUF", many)
    for name in many:  # frames become large, so that buffers fill soon
        wingman.get("/api/downloads/enqueue", modelRepo="maker/many-GGUF", filePath=name)
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect(("127.0.0.1", wingman.control_port))
    with stuck:
        stuck.sendall(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b"101" in stuck.recv(64)
        with listening(wingman) as client:
            number = 0

            def let_go() -> bool:
                nonlocal number
                for _ in range(20):  # each change is told at once, and the full set with it
                    number += 1
                    name = list(many)[number % len(many)]
                    wingman.get("/api/downloads/cancel", modelRepo="maker/many-GGUF", filePath=name)
                    wingman.get("/api/downloads/enqueue", modelRepo="maker/many-GGUF", filePath=name)
                until(client, "DownloadItems")
                return "too slow" in wingman.server.log()

            wingman.until(let_go)
            until(client, "WingmanService")
    for name in many:
        wingman.get("/api/downloads/reset", modelRepo="maker/many-GGUF", filePath=name)
    del wingman.hub.repos["maker/many-GGUF"]


def test_shutdown_ends_the_server_after_a_last_word(wingman: Wingman) -> None:
    with listening(wingman) as client, listening(wingman) as other:
        client.send("shutdown")
        said = [str(text) for text in client]
        assert said[-1] == "Shutting down"
        stopping = [until(other, "status", status="stopping")["isa"] for _ in range(2)]
        assert stopping == ["WingmanServiceAppItem", "DownloadServiceAppItem"]
        with pytest.raises(ConnectionClosed) as closed:
            for _ in frames(other):
                pass
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    assert wingman.server._process is not None
    assert wingman.server._process.wait(LIMIT) == 0
    assert REPO not in wingman.server.log().partition("Traceback")[2]
