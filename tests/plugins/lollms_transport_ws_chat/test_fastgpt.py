"""FastGPT and other services as the one who answers, and where their address comes from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lollms_kernel.errors import ConfigError, GenerationFailed, LollmsError, Unavailable
from lollms_kernel.testing.fakes import dropped, garbage, refusal
from lollms_kernel.testing.fakes.openai import FakeOpenAI, OpenAIModel
from lollms_kernel.testing.fakes.server import Received, Reply
from lollms_transport_ws_chat.backend import Question
from lollms_transport_ws_chat.environment import resolve
from lollms_transport_ws_chat.events import Line
from lollms_transport_ws_chat.fastgpt import FastGptBackend, completions_url
from lollms_transport_ws_chat.settings import WsChatSettings

from .conftest import ChatServer
from .live import connected
from .world import Anybody

KEY = "fastgpt-key-of-the-test"
PATH = "/api/v1/chat/completions"
LINES = (
    Line("assistant", "Welcome.", "1"),
    Line("user", "Say", "2"),
    Line("user", "something kind.", "3"),
)


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI([OpenAIModel(id="app")], flavour="fastgpt", api_key=KEY) as server:
        yield server


@pytest.fixture
async def backend(fake: FakeOpenAI) -> AsyncIterator[FastGptBackend]:
    made = FastGptBackend(fake.url + "/", KEY, "app-5", None)
    yield made
    await made.close()


def question() -> Question:
    return Question(lines=LINES, client_id="u", session="s1", caller=Anybody())


async def ask(backend: FastGptBackend) -> list[str]:
    async with aclosing(backend.reply(question())) as pieces:
        return [piece async for piece in pieces]


async def test_the_conversation_goes_there_and_the_answer_is_streamed(
    fake: FakeOpenAI, backend: FastGptBackend
) -> None:
    pieces = await ask(backend)
    assert "".join(pieces) == "Say\nsomething kind."
    assert len([piece for piece in pieces if piece]) > 1
    request = fake.requests_to(PATH)[0]
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.json == {
        "stream": True,
        "detail": False,
        "appId": "app-5",
        "messages": [
            {"role": "assistant", "content": "Welcome."},
            {"role": "user", "content": "Say\nsomething kind."},
        ],
    }
    assert backend.fault() is None


async def test_the_service_may_keep_the_conversation_itself(fake: FakeOpenAI) -> None:
    backend = FastGptBackend(fake.url, KEY, None, None, server_side_history=True)
    await ask(backend)
    await backend.close()
    body = fake.requests_to(PATH)[0].json
    assert body["chatId"] == "s1:u"
    assert [message["content"] for message in body["messages"]] == ["Say\nsomething kind."]


class Answers(FakeOpenAI):
    """Answers with these bytes."""

    def __init__(self, data: bytes, content_type: str) -> None:
        super().__init__([OpenAIModel(id="app")], flavour="fastgpt")
        self._reply = Reply(headers={"content-type": content_type}, frames=(data,))

    def reply(self, request: Received) -> Reply:
        return self._reply


PARTS = [
    {"type": "text", "text": {"content": "one "}},
    {"type": "interactive"},
    {"type": "text", "text": "two"},
]


@pytest.mark.parametrize(
    ("data", "content_type", "text"),
    [
        (msgspec.json.encode({"choices": [{"message": {"content": "whole"}}]}), "application/json", "whole"),
        (msgspec.json.encode({"choices": [{"message": {"content": PARTS}}]}), "application/json", "one two"),
        (
            b'event: flowNodeStatus\ndata: {"status": "running"}\n\n'
            b'event: answer\ndata: {"choices": [{"delta": {"content": "a"}}]}\n\n'
            b'event: toolCall\ndata: {"choices": [{"delta": {"content": "not spoken"}}]}\n\n'
            b'event: fastAnswer\ndata: {"choices": [{"delta": {"content": "b"}}]}\n\n'
            b': comment\n\ndata: {"choices": []}\n\ndata: {"choices": [{"delta": {"content": null}}]}\n\n'
            b"data: [DONE]\n\n",
            "text/event-stream",
            "ab",
        ),
    ],
)
async def test_every_form_of_an_answer_is_read(data: bytes, content_type: str, text: str) -> None:
    with Answers(data, content_type) as fake:
        backend = FastGptBackend(fake.url, None, None, None)
        assert "".join(await ask(backend)) == text
        await backend.close()


SECRET = (
    b'{"code": 514, "statusText": "unAuthorization", "message": "key fastgpt-key-of-the-test is wrong", '
    b'"data": null}'
)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (refusal(500, SECRET, PATH), Unavailable),
        (refusal(403, SECRET, PATH), GenerationFailed),
        (refusal(500, b"[" * 100_000, PATH), Unavailable),
        (dropped(1, PATH), Unavailable),
        (garbage(1, b"event: error\ndata: " + SECRET + b"\n\n", path=PATH), GenerationFailed),
        (garbage(1, b'data: {"error": {"code": "x"}}\n\n', path=PATH), GenerationFailed),
        (garbage(1, b"data: {not json\n\n", path=PATH), GenerationFailed),
    ],
)
async def test_errors_are_told_without_what_the_service_wrote(
    fake: FakeOpenAI,
    backend: FastGptBackend,
    caplog: pytest.LogCaptureFixture,
    fault: Any,
    error: type[LollmsError],
) -> None:
    fake.faults.append(fault)
    with pytest.raises(error) as raised:
        await ask(backend)
    for text in (raised.value.detail, caplog.text):
        assert KEY not in text
        assert fake.url not in text
        assert "is wrong" not in text
    assert "".join(await ask(backend)) == "Say\nsomething kind."


async def test_a_service_that_is_not_there_is_told_where_readiness_is_asked() -> None:
    backend = FastGptBackend("http://127.0.0.1:1", None, None, None)
    with pytest.raises(Unavailable):
        await ask(backend)
    assert "ConnectError" in str(backend.fault())
    await backend.close()


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://localhost:3000/", "http://localhost:3000/api/v1/chat/completions"),
        ("https://api.example/v1", "https://api.example/v1/chat/completions"),
        ("https://fast.example/api/v2/", "https://fast.example/api/v2/chat/completions"),
        ("http://h/chat/completions", "http://h/chat/completions"),
    ],
)
def test_addresses(url: str, where: str) -> None:
    assert completions_url(url) == where


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://h", "http://", "http://a:b@h", "http://h:x"])
def test_an_address_that_cannot_be_used_is_told_at_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match="CHAT_MODEL_API_URL") as wrong:
        completions_url(url)
    assert "b@h" not in str(wrong.value)


# --- environment and .env ---

FILE = """
MAX_INCOMPLETE_SENTENCES=2
MAX_RESPONSE_TIMEOUT=2.5
CHAT_MODEL_API_URL=http://localhost:3000/
CHAT_MODEL_API_KEY="your_fastgpt_api_key_here"
CHAT_MODEL_APP_ID=your_fastgpt_app_id_here   # the application
"""


def test_defaults_are_those_of_the_document(tmp_path: Path) -> None:
    resolved = resolve(WsChatSettings(), tmp_path, {})
    assert (resolved.max_incomplete, resolved.silence) == (3, 5.0)
    assert (resolved.api_url, resolved.api_key, resolved.app_id) == (None, None, None)


def test_a_dotenv_file_is_read_the_environment_wins_and_the_configuration_wins_over_both(
    tmp_path: Path,
) -> None:
    (tmp_path / ".env").write_text(FILE)
    resolved = resolve(WsChatSettings(), tmp_path, {})
    assert (resolved.max_incomplete, resolved.silence) == (2, 2.5)
    assert resolved.api_url == "http://localhost:3000/"
    assert (resolved.api_key, resolved.app_id) == ("your_fastgpt_api_key_here", "your_fastgpt_app_id_here")
    assert "your_fastgpt_api_key_here" not in repr(resolved)
    environ = {"MAX_INCOMPLETE_SENTENCES": "4", "MAX_RESPONSE_TIMEOUT": "0", "CHAT_MODEL_APP_ID": " "}
    resolved = resolve(WsChatSettings(max_response_timeout=7.0, app_id="mine"), tmp_path, environ)
    assert (resolved.max_incomplete, resolved.silence, resolved.app_id) == (4, 7.0, "mine")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_INCOMPLETE_SENTENCES", "0"),
        ("MAX_INCOMPLETE_SENTENCES", "2.5"),
        ("MAX_RESPONSE_TIMEOUT", "-1"),
        ("MAX_RESPONSE_TIMEOUT", "nan"),
        ("MAX_RESPONSE_TIMEOUT", "soon"),
    ],
)
def test_a_value_that_cannot_be_used_is_told_at_the_start(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"environment variable {name}"):
        resolve(WsChatSettings(), tmp_path, {name: value})
    (tmp_path / ".env").write_text(f"{name}={value}\n")
    with pytest.raises(ConfigError, match=rf"\.env: {name}"):
        resolve(WsChatSettings(), tmp_path, {})


async def test_the_documents_environment_makes_fastgpt_answer(fake: FakeOpenAI, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        f"CHAT_MODEL_API_URL={fake.url}/\nCHAT_MODEL_API_KEY={KEY}\nCHAT_MODEL_APP_ID=from-file\n"
    )
    server = ChatServer.make(root=tmp_path, env={"CHAT_MODEL_APP_ID": "from-environment"})
    with server.process:
        async with connected(server.own, "u", features="stream") as client:
            await client.heard()
            await client.say("To the service.")
            assert (await client.heard())["text"] == "To the service."
            assert "AI_RESPONSE_DELTA" in [message["type"] for _, message in client.got]
            fake.faults.append(refusal(500, SECRET, PATH))
            await client.say("Once more.")
            error = await client.receive("ERROR")
            assert (error["message"], error["text"]) == ("The chat service cannot answer now.", "Once more.")
    assert fake.requests_to(PATH)[0].json["appId"] == "from-environment"
    assert f"[INFO] ℹ️: Answers come from another service | host=127.0.0.1:{fake.port}" in server.process.log()  # noqa: RUF001
    assert KEY not in server.process.log()
