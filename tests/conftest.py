"""For all tests: Ctrl-C works, a real browser, a real Redis."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from lollms_kernel.testing.server_process import free_port

if TYPE_CHECKING:
    from playwright.async_api import Page, Request

# Shells start background jobs with SIGINT ignored, and every program that these start inherits that: Ctrl-C would do
# nothing in the programs under test. A handler here gives them the default again.
signal.signal(signal.SIGINT, signal.default_int_handler)

CHROMIUM = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
START_TIMEOUT = 30.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a long test come first."""
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)


def program(name: str) -> str:
    """The full path of a program that `make test` installs."""
    found = shutil.which(name)
    assert found, f"{name} is not installed: `sh tools/install.sh test` installs it, or says how to"
    return found


@pytest.fixture
async def browser_page() -> AsyncIterator[Page]:
    """A page of headless Chromium. The test fails if the page asks for anything outside this machine, or if a script
    of it raises and nobody catches that."""
    from playwright.async_api import async_playwright

    outside: list[str] = []
    raised: list[str] = []

    def look(request: Request) -> None:
        if urlsplit(request.url).hostname not in (None, "localhost", "127.0.0.1", "::1"):
            outside.append(request.url)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program("chromium"), args=CHROMIUM)
        try:
            page = await browser.new_page(viewport={"width": 1100, "height": 800})
            page.on("request", look)
            page.on("pageerror", lambda error: raised.append(str(error)))
            yield page
        finally:
            await browser.close()
    assert not outside, f"the page asked for {outside}"
    assert not raised, f"the page's scripts raised {raised}"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty Redis server that belongs to the test module."""
    folder: Path = tmp_path_factory.mktemp("redis")
    port = free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "redis-server did not start"
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)
