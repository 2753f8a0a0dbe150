"""The control API over real HTTP: paths, codes, objects, and who may change something."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lollms_kernel.testing.fakes import refusal
from lollms_kernel.testing.fakes.hub import FakeHub

from .conftest import FILE, KEY, LIMIT, REPO, Wingman

DOWNLOAD_ITEM = {
    "isa", "modelRepo", "filePath", "status", "totalBytes", "downloadedBytes", "downloadSpeed", "progress", "metadata",
    "error", "created", "updated",
}  # fmt: skip
AI_MODEL = {
    "isa", "id", "name", "maxLength", "tokenLimit", "vendor", "location", "items", "downloads", "likes", "created",
    "updated", "size", "iQScore", "eQScore", "isInferable", "totalMemory", "availableMemory",
    "normalizedQuantizedMemRequired",
}  # fmt: skip
DOWNLOADABLE_ITEM = {
    "isa", "modelRepo", "modelRepoName", "filePath", "quantization", "quantizationName", "isDownloaded", "available",
    "hasError", "location", "isInferable", "normalizedQuantizedMemRequired",
}  # fmt: skip


@pytest.fixture(autouse=True)
def clean(wingman: Wingman) -> Iterator[None]:
    """No download is left for the next test."""
    yield
    wingman.hub.storage.frame_delay = 0.0
    for item in wingman.get("/api/downloads").json()["DownloadItems"]:
        wingman.get("/api/downloads/reset", modelRepo=item["modelRepo"], filePath=item["filePath"])


# --- catalogue ----------------------------------------------------------------------------------------------


def test_models_lists_repositories_with_their_quantizations(wingman: Wingman) -> None:
    (entry,) = wingman.get("/api/models").json()["models"]

    assert entry.keys() == AI_MODEL
    assert (entry["isa"], entry["id"], entry["name"], entry["size"]) == (
        "AIModel",
        REPO,
        "maker/alpha-1B",
        "1B",
    )
    assert entry["created"] == "2024-05-01T10:00:00.000Z"
    assert entry["normalizedQuantizedMemRequired"] == 2048
    four, eight = entry["items"]
    assert four.keys() == DOWNLOADABLE_ITEM
    assert (four["quantization"], four["quantizationName"]) == ("Q4_K_M", "4 K M")
    assert (eight["quantization"], eight["normalizedQuantizedMemRequired"]) == ("Q8_0", 1024)
    assert four["location"] == f"{wingman.hub.url}/{REPO}/resolve/main/{FILE}"
    assert four["isInferable"] is (entry["availableMemory"] >= 512)
    assert four["isDownloaded"] is False

    wingman.download()
    (entry,) = wingman.get("/api/models").json()["models"]
    assert [item["isDownloaded"] for item in entry["items"]] == [True, False]


def test_hardware_tells_memory_in_mib(wingman: Wingman) -> None:
    told = wingman.get("/api/hardware").json()

    assert told == wingman.get("/api/hardwareinfo").json() | {"cpu": told["cpu"]}
    assert told["cpu"]["totalMemoryMB"] >= told["cpu"]["freeMemoryMB"] > 0
    assert told["gpu"].keys() == {"totalMemoryMB", "freeMemoryMB"}


# --- downloads ----------------------------------------------------------------------------------------------


def test_a_download_from_its_queue_to_its_reset(wingman: Wingman) -> None:
    wingman.hub.storage.frame_delay = 0.02
    queued = wingman.get("/api/downloads/enqueue", **KEY)
    again = wingman.get("/api/downloads/enqueue", **KEY)

    assert (queued.status_code, again.status_code) == (202, 208)
    item = queued.json()
    assert item.keys() == DOWNLOAD_ITEM
    assert (item["isa"], item["status"], item["modelRepo"], item["filePath"]) == (
        "DownloadItem",
        "queued",
        REPO,
        FILE,
    )
    assert (item["totalBytes"], item["downloadedBytes"], item["progress"], item["downloadSpeed"]) == (
        0,
        0,
        0,
        "",
    )

    def halfway() -> Any:
        (found,) = wingman.get("/api/downloads", **KEY).json()["DownloadItems"]
        return found if found["status"] == "downloading" and found["downloadedBytes"] else None

    found = wingman.until(halfway)
    assert 0 < found["progress"] <= 100
    assert found["downloadSpeed"].endswith("/s")
    wingman.hub.storage.frame_delay = 0.0
    done = wingman.download()
    assert (done["progress"], done["downloadedBytes"]) == (100.0, done["totalBytes"])
    assert wingman.get("/api/downloads/enqueue", **KEY).status_code == 208

    cancelled = wingman.get("/api/downloads/cancel", **KEY)
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled"), "whatever it was before"
    removed = wingman.get("/api/downloads/reset", **KEY)
    assert (removed.status_code, removed.json()["status"]) == (200, "cancelled"), "as it was"
    assert wingman.get("/api/downloads").json() == {"DownloadItems": []}
    assert wingman.get("/api/downloads/remove", **KEY).status_code == 404


def test_filters_are_exact(wingman: Wingman) -> None:
    wingman.download()

    def found(**query: str) -> int:
        return len(wingman.get("/api/downloads/", **query).json()["DownloadItems"])

    assert found() == found(modelRepo=REPO) == found(filePath=FILE) == found(**KEY) == 1
    assert found(modelRepo="", filePath="") == 1, "empty is missing"
    assert found(modelRepo=REPO.upper()) == found(modelRepo="x") == 0


@pytest.mark.parametrize("act", ["enqueue", "cancel", "reset", "remove"])
def test_missing_and_unknown_names(wingman: Wingman, act: str) -> None:
    path = f"/api/downloads/{act}"
    for query in ({}, {"modelRepo": REPO}, {"filePath": FILE}, {"modelRepo": "", "filePath": FILE}):
        answer = wingman.get(path, **query)
        assert (answer.status_code, answer.content) == (422, b"")
    for key in (
        {"modelRepo": REPO, "filePath": "none.gguf"},
        {"modelRepo": "maker/none", "filePath": FILE},
        {"modelRepo": "../..", "filePath": "etc/passwd"},
        {"modelRepo": REPO, "filePath": "../../../../etc/passwd"},
        {"modelRepo": "😀", "filePath": "😀"},
    ):
        answer = wingman.get(path, **key)
        assert (answer.status_code, answer.content) == (404, b"")


def test_names_in_other_letters_are_the_hubs_own(wingman: Wingman) -> None:
    answer = wingman.get("/api/downloads/enqueue", modelRepo=REPO.upper(), filePath=FILE.upper())

    assert answer.status_code == 202
    assert (answer.json()["modelRepo"], answer.json()["filePath"]) == (REPO, FILE)


def test_a_failed_download_tells_its_reason(wingman: Wingman) -> None:
    wingman.hub.storage.faults.append(refusal(403))
    assert wingman.get("/api/downloads/enqueue", **KEY).status_code == 202

    def failed() -> Any:
        (found,) = wingman.get("/api/downloads", **KEY).json()["DownloadItems"]
        return found if found["status"] == "error" else None

    assert "refuses the file" in wingman.until(failed)["error"]


# --- paths, methods, bodies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/API/Downloads/", "/api/downloads/", "/api/DOWNLOADS", "/api/downloads///"]
)
def test_letters_and_slashes_do_not_matter(wingman: Wingman, path: str) -> None:
    assert wingman.get(path).json() == {"DownloadItems": []}


def test_the_same_answers_below_wingman_on_the_main_port(wingman: Wingman) -> None:
    for path in ("/wingman/api/downloads", "/wingman/API/Downloads/"):
        assert httpx.get(wingman.server.url + path).json() == {"DownloadItems": []}
    assert httpx.get(f"{wingman.server.url}/wingman/api/nothing").status_code == 404
    assert httpx.get(f"{wingman.server.url}/wingman/api/downloads/cancel").status_code == 422


def test_headers_are_those_that_pages_need(wingman: Wingman) -> None:
    headers = wingman.get("/api/downloads").headers

    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-methods"] == "GET"
    page = wingman.control.get("/api/downloads", headers={"origin": "http://localhost:3000"})
    assert page.headers.get_list("access-control-allow-origin") == ["http://localhost:3000"]
    elsewhere = wingman.control.get("/api/downloads", headers={"origin": "https://example.org"})
    assert "access-control-allow-origin" not in elsewhere.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/api/downloads", 405),
        ("DELETE", "/api/downloads/reset", 405),
        ("POST", "/api/inference/start", 405),
        ("GET", "/api/utils/log", 405),
        ("POST", "/api/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/api", 404),
        ("HEAD", "/api/downloads", 200),
        ("HEAD", "/api/shutdown", 200),
    ],
)
def test_other_methods_and_paths(wingman: Wingman, method: str, path: str, status: int) -> None:
    answer = wingman.control.request(method, path)

    assert answer.status_code == status
    if status in (404, 405):
        assert answer.content == b""
    if status == 405:
        assert answer.headers["allow"]


def test_a_preflight_is_answered(wingman: Wingman) -> None:
    answer = wingman.control.options("/api/utils/log", headers={"origin": "http://localhost:3000"})

    assert answer.status_code in (200, 204)
    assert "POST" in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize("query", ["?a=%ff", "?modelRepo=%C3%28&filePath=x", "?" + "a=1&" * 200])
def test_a_query_that_is_none_is_400(wingman: Wingman, query: str) -> None:
    assert wingman.control.get(f"/api/downloads/cancel{query}").status_code == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (
            b'{"isa": "WingmanLogItem", "level": "warn", "message": "the page says\\nthis", "timestamp": 1}',
            200,
        ),
        (b"{}", 200),
        (b'{"level": "unheard of"}', 200),
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"message": 7}', 400),
        (b"\xff\xfe", 400),
        (b'"' + b"x" * 300_000 + b'"', 413),
    ],
)
def test_lines_for_the_log(wingman: Wingman, body: bytes, status: int) -> None:
    answer = wingman.control.post("/api/utils/log", content=body, headers={"content-type": "text/plain"})

    assert (answer.status_code, answer.content) == (status, b"")
    if b"the page" in body:
        assert "the page says this" in wingman.server.log(), "in one line"


def test_bytes_that_are_no_http_do_no_harm(wingman: Wingman) -> None:
    for rubbish in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET \x00 HTTP/1.1\r\n\r\n",
        b"GET /api/models HTTP/9.9\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", wingman.control_port), timeout=LIMIT) as raw:
            raw.sendall(rubbish)
            raw.shutdown(socket.SHUT_WR)
            raw.recv(1000)
    assert wingman.get("/api/downloads").status_code == 200


# --- who may ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api/downloads/enqueue", "/api/inference/start", "/api/shutdown", "/api/downloads/reset"]
)
@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://example.org"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}],
    ids=["page", "image", "sandbox"],
)
def test_pages_of_other_machines_change_nothing(wingman: Wingman, path: str, headers: dict[str, str]) -> None:
    answer = wingman.control.get(path, params=KEY, headers=headers)

    assert answer.status_code == 403
    assert wingman.get("/api/downloads").json() == {"DownloadItems": []}


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://localhost:3000"}, {"origin": "tauri://localhost"}, {"sec-fetch-site": "none"}],
)
def test_pages_of_this_machine_may(wingman: Wingman, headers: dict[str, str]) -> None:
    assert wingman.control.get("/api/downloads/enqueue", params=KEY, headers=headers).status_code == 202


def test_shutdown_is_not_for_those_behind_a_proxy(wingman: Wingman) -> None:
    assert wingman.control.get("/api/shutdown", headers={"x-forwarded-for": "10.0.0.9"}).status_code == 403


def test_with_keys_everything_needs_one_and_a_limited_one_changes_nothing(
    hub: FakeHub, tmp_path: Path
) -> None:
    keys = ["k-all", {"name": "guest", "key": "k-guest", "bindings": ["embedded"]}]
    with Wingman(tmp_path, hub, security={"allowed_api_keys": keys}) as locked:
        assert locked.get("/api/downloads").status_code == 403
        assert locked.get("/api/health").json() == {"status": "ok"}
        guest, owner = {"x-api-key": "k-guest"}, {"authorization": "Bearer k-all"}
        assert locked.control.get("/api/downloads", headers=guest).status_code == 200
        for path in ("/api/downloads/enqueue", "/api/inference/stop", "/api/shutdown"):
            assert locked.control.get(path, params=KEY, headers=guest).status_code == 403
        elsewhere = {**owner, "origin": "https://example.org"}
        assert locked.control.get("/api/downloads/enqueue", params=KEY, headers=elsewhere).status_code == 202
        stopped = locked.control.get("/api/shutdown", headers=owner)
        assert (stopped.status_code, stopped.text) == (200, "Shutting down")
        assert locked.server._process is not None
        assert locked.server._process.wait(LIMIT) == 0


def test_keys_are_sorted_as_the_original_sorts_them(wingman: Wingman) -> None:
    text = wingman.get("/api/models").text

    (entry,) = json.loads(text)["models"]
    assert list(entry) == sorted(entry)
