"""A page in a real browser holds a whole conversation with the server of another origin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest

from lollms_kernel.testing import ServerProcess

from .node_scripts import bundle

if TYPE_CHECKING:
    from playwright.async_api import Page

KEY = "key-of-the-page"


class Pages(BaseHTTPRequestHandler):
    """Serves the page and the client's script from a local origin."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        files = {"/": Path(__file__).parent / "page.html", "/socket.io.js": bundle()}
        if path not in files:
            self.send_error(404)
            return
        body = files[path].read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if path == "/" else "text/javascript")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_arguments: Any) -> None:
        """Quietly."""


@contextmanager
def pages() -> Iterator[str]:
    """The origin of the page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The origin that the server allows."""
    with pages() as origin:
        yield origin


@pytest.fixture(scope="module")
def server_for_pages(origin: str) -> Iterator[ServerProcess]:
    slow: dict[str, Any] = {"model": "slow-model", "chunks": ["word "] * 1000, "stream_chunk_delay": 0.02}
    config = {
        "server": {"allowed_origins": [origin]},
        "defaults": {"ttt_binding": "echo"},
        "security": {"allowed_api_keys": [KEY]},
    }
    instances = {
        "echo": {"type": "dummy_binding", "model": "echo-model"},
        "slow": {"type": "dummy_binding", **slow},
    }
    with ServerProcess(config, instances) as server:
        yield server


async def test_a_page_holds_a_whole_conversation(
    browser_page: Page, origin: str, server_for_pages: ServerProcess
) -> None:
    for transports in ("polling,websocket", "polling"):
        query = urlencode({"server": server_for_pages.url, "transports": transports, "key": KEY})
        await browser_page.goto(f"{origin}/?{query}")
        await converse(browser_page)


async def converse(page: Page) -> None:
    """Choose, ask, hear the answer, and stop another one."""
    await page.wait_for_function("document.getElementById('binding').length === 2")
    await page.select_option("#binding", "echo")
    await page.dispatch_event("#binding", "change")
    await wait_for(page, "binding selected")
    await page.wait_for_function("document.getElementById('model').value === 'echo-model'")
    await page.dispatch_event("#model", "change")
    await wait_for(page, "model selected")
    await page.select_option("#personality", "lollms")
    await page.click("#add")
    await wait_for(page, "talking to lollms")

    await page.fill("#prompt", "Good morning, dear server")
    await page.click("#send")
    await wait_for(page, "answered")
    assert await page.text_content("#answer") == "Good morning, dear server"

    await page.select_option("#binding", "slow")
    await wait_for(page, "binding selected")
    await page.click("#send")
    await page.wait_for_function("document.getElementById('answer').textContent.length > 20")
    await page.click("#stop")
    await wait_for(page, "Generation is canceled.")
    said = await page.text_content("#answer")
    await page.select_option("#binding", "echo")
    await page.wait_for_function("document.getElementById('model').value === 'echo-model'")
    assert await page.text_content("#answer") == said, "the answer went on after it was stopped"


async def test_a_page_of_another_origin_and_one_without_a_key_are_refused(
    browser_page: Page, origin: str, server_for_pages: ServerProcess
) -> None:
    query = urlencode({"server": server_for_pages.url, "transports": "websocket"})

    await browser_page.goto(f"{origin}/?{query}")
    await wait_for(browser_page, "refused: API Key required but not provided.")
    with pages() as elsewhere:
        await browser_page.goto(f"{elsewhere}/?{query}")
        await wait_for(browser_page, "refused: websocket error")


async def wait_for(page: Page, state: str) -> None:
    await page.wait_for_function("text => document.getElementById('state').textContent === text", arg=state)
