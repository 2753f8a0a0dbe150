"""The API's page in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lollms_kernel.testing import ServerProcess

if TYPE_CHECKING:
    from playwright.async_api import Page


async def test_the_page_shows_the_routes_and_asks_for_nothing_outside(
    browser_page: Page, lollms_server: Callable[..., ServerProcess]
) -> None:
    server = lollms_server()

    await browser_page.goto(f"{server.url}/docs")

    await browser_page.get_by_text("/api/v1/generate").first.wait_for()
