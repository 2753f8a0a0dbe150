"""A server with Wingman's control side, a hub on this machine, and a real model in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.fakes.hub import FakeHub
from lollms_kernel.testing.server_process import free_port

from .alphabet import alphabet

LIMIT = 60.0
REPO = "maker/alpha-1B-GGUF"
FILE = "alpha.Q4_K_M.gguf"
KEY = {"modelRepo": REPO, "filePath": FILE}


class Wingman:
    """A live server; `control` is a client of its control port."""

    def __init__(self, root: Path, hub: FakeHub, **config: Any) -> None:
        self.root = root
        self.hub = hub
        self.control_port, self.inference_port = free_port(), free_port()
        self.home = root / "home"
        section = {
            "control_port": self.control_port,
            "inference_port": self.inference_port,
            "home": str(self.home),
            "hub_url": hub.url,
        }
        self.config = {"transports": {"wingman": section}, **config}
        self.server: ServerProcess
        self.control = httpx.Client(base_url=f"http://127.0.0.1:{self.control_port}", timeout=LIMIT)

    def __enter__(self) -> Wingman:
        self.server = ServerProcess(self.config, root=self.root / "server", extra_ports=True)
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self.control.close()

    def restart(self) -> None:
        """Start again what was stopped, on the same ports and folders."""
        self.server = ServerProcess(self.config, root=self.root / "server", extra_ports=True)
        self.server.__enter__()

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.control.get(path, params=query)

    def until(self, condition: Callable[[], Any]) -> Any:
        """What `condition` gives as soon as it is true."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"it did not happen within {LIMIT:g} s\n{self.server.log()}")

    def item(self, alias: str = FILE) -> dict[str, Any] | None:
        found: list[dict[str, Any]] = self.get("/api/inference/status", alias=alias).json()
        return found[0] if found else None

    def until_item(self, *statuses: str, alias: str = FILE) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.item(alias)
            return found if found is not None and found["status"] in statuses else None

        item: dict[str, Any] = self.until(look)
        return item

    def download(self, file: str = FILE, repo: str = REPO) -> dict[str, Any]:
        """Queue a file and wait until it is complete."""
        answer = self.get("/api/downloads/enqueue", modelRepo=repo, filePath=file)
        assert answer.status_code in (202, 208), answer.text

        def look() -> dict[str, Any] | None:
            (item,) = self.get("/api/downloads", modelRepo=repo, filePath=file).json()["DownloadItems"]
            return item if item["status"] == "complete" else None

        item: dict[str, Any] = self.until(look)
        return item


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return alphabet(tmp_path_factory.mktemp("model") / "alphabet.gguf")


@pytest.fixture(scope="module")
def hub(model: bytes) -> Iterator[FakeHub]:
    with FakeHub() as fake:
        fake.add(REPO, {FILE: model, "alpha.Q8_0.gguf": model[:-1] + b"x", "README.md": b"# Alpha"})
        yield fake


@pytest.fixture(scope="module")
def wingman(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wingman]:
    with Wingman(tmp_path_factory.mktemp("wingman"), hub) as running:
        yield running
