"""The page in a real browser, on both ports: typing, states, speech in and out, keys, and coming back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

from .conftest import ChatServer
from .live import connected

if TYPE_CHECKING:
    from playwright.async_api import Page

KEY = "key-of-the-page"
LIMIT = 20_000

SPEECH = """
window.spokenAloud = [];
class Utterance { constructor(text) { this.text = text; } }
window.SpeechSynthesisUtterance = Utterance;
Object.defineProperty(window, 'speechSynthesis', { value: {
  speak(utterance) {
    window.spokenAloud.push(utterance.text);
    window.current = utterance;
    utterance.onstart();
  },
  cancel() { window.current?.onend(); },
} });
window.webkitSpeechRecognition = undefined;
window.SpeechRecognition = class {
  start() { window.ear = this; window.listening = true; }
  stop() { window.listening = false; this.onend(); }
};
window.hear = (text, isFinal) => window.ear.onresult(
  { resultIndex: 0, results: [Object.assign([{ transcript: text }], { isFinal })] });
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    made = ChatServer.make({"welcome": "Welcome.", "fixed_tts_duration": 30.0, "max_response_timeout": 30.0})
    with made.process:
        yield made


async def says(page: Page, text: str) -> None:
    await page.get_by_role("log").get_by_text(text).first.wait_for(timeout=LIMIT)


async def state(page: Page, text: str) -> None:
    await page.get_by_role("status").get_by_text(text).wait_for(timeout=LIMIT)


@pytest.mark.parametrize("where", ["own", "main"])
async def test_typing_and_the_states_of_the_conversation(
    browser_page: Page, server: ChatServer, where: str
) -> None:
    page = browser_page
    own = f"http://127.0.0.1:{server.port}/"
    await page.goto(own if where == "own" else f"{server.process.url}/ws/chat")
    await says(page, "Welcome.")
    await state(page, "Listening")  # nothing is read aloud, so nothing is waited for
    box = page.get_by_label("Message")
    await box.fill("I would like to")
    await box.press("Enter")
    await state(page, "Waiting for the rest")
    assert await page.get_by_role("button", name="Answer now").is_visible()
    await box.fill("drink tea.")
    await page.get_by_role("button", name="Send").click()
    await says(page, "I would like to drink tea.")
    await says(page, "answered because the turn was complete")
    await box.fill("And now")
    await box.press("Enter")
    await state(page, "Waiting for the rest")
    await page.get_by_role("button", name="Answer now").click()
    await says(page, "answered because you asked for it")

    await page.reload()
    await says(page, "Conversation continued (5 messages so far).")
    await page.get_by_role("button", name="New conversation").click()
    await says(page, "Welcome.")


async def test_speech_in_and_out(browser_page: Page, server: ChatServer) -> None:
    page = browser_page
    await page.add_init_script(SPEECH)
    await page.goto(f"http://127.0.0.1:{server.port}/?binding=slow")
    await says(page, "Welcome.")
    await page.get_by_label("Read answers aloud").check()
    await page.get_by_role("button", name="Speak").click()
    await page.evaluate("hear('what do', false)")
    assert await page.locator("#interim").text_content() == "what do"
    await page.evaluate("hear('What do you hear?', true)")
    await state(page, "Thinking")
    await state(page, "Speaking")
    assert await page.evaluate("spokenAloud") == ["What do you hear?"]
    assert not await page.evaluate("listening")  # it would hear the answer
    await page.evaluate("hear('One more thing.', true)")
    await state(page, "Speaking · 1 waiting")
    await page.keyboard.press("Escape")
    await says(page, "interrupted")
    await state(page, "Waiting for the rest")
    assert await page.evaluate("listening")
    await page.get_by_role("button", name="Speak").click()
    assert not await page.evaluate("listening")
    assert await page.get_by_role("button", name="Speak").get_attribute("aria-pressed") == "false"


async def test_what_goes_wrong_is_shown(browser_page: Page, server: ChatServer) -> None:
    page = browser_page
    await page.goto(f"http://127.0.0.1:{server.port}/?binding=failing")
    await says(page, "Welcome.")
    await page.get_by_label("Message").fill("Will it work?")
    await page.get_by_label("Message").press("Enter")
    await says(page, "(“Will it work?” was not answered.)")
    client_id = await page.evaluate("localStorage.getItem('lollms-voice-chat-client')")
    async with connected(server.own, client_id):
        await state(page, "Open in another window")


async def test_a_key_is_asked_for_where_one_is_needed(browser_page: Page) -> None:
    page = browser_page
    locked = ChatServer.make(config={"security": {"allowed_api_keys": [KEY]}})
    with locked.process:
        await page.goto(f"{locked.process.url}/ws/chat")
        field = page.get_by_label("This server asks for an API key.")
        await field.fill("wrong")
        await field.press("Enter")
        await page.get_by_text("This key is not valid.").wait_for(timeout=LIMIT)
        await field.fill(KEY)
        await page.get_by_role("button", name="Connect").click()
        await says(page, "Welcome.")
    assert KEY not in locked.process.log()


def test_the_page_loads_nothing_from_elsewhere_and_has_no_other_files(server: ChatServer) -> None:
    base = f"http://127.0.0.1:{server.port}"
    page = httpx.get(base, trust_env=False)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    for name in ("index.html", "..%2F__init__.py", "nothing.js"):
        assert httpx.get(f"{base}/page/{name}", trust_env=False).status_code == 404
