"""FastGPT, or another service with OpenAI's chat API, as the one who answers.

What the service writes in its errors goes nowhere: it may hold the key, its address or parts of a workflow.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from lollms_kernel.errors import ConfigError, GenerationFailed, LollmsError, Unavailable
from lollms_kernel.upstream import on_this_machine

from .backend import Backend, Question, conversation

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
SILENCE_TIMEOUT = 60.0
LONGEST_ERROR = 64 * 1024
_SPOKEN = frozenset({"", "message", "answer", "fastAnswer"})
"""Events whose text is part of the answer; the others tell how a workflow goes."""


class FastGptBackend(Backend):
    """Sends the conversation as it stands here, so that what was taken back here is unknown there.

    With `server_side_history` the service keeps the conversation and gets the last message only.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        app_id: str | None,
        model: str | None,
        *,
        server_side_history: bool = False,
    ) -> None:
        self._url = completions_url(url)
        self._app_id = app_id
        self._model = model
        self._server_side_history = server_side_history
        self._fault: str | None = None
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(SILENCE_TIMEOUT, connect=CONNECT_TIMEOUT),
            trust_env=not on_this_machine(self._url),
            limits=httpx.Limits(max_connections=None),
        )

    @property
    def host(self) -> str:
        """See `Backend.host`."""
        return urlsplit(self._url).netloc

    def _body(self, question: Question) -> dict[str, Any]:
        messages = [{"role": turn.role, "content": turn.content} for turn in conversation(question.lines)]
        body: dict[str, Any] = {"stream": True, "detail": False, "messages": messages}
        if self._server_side_history:
            body |= {"chatId": f"{question.session}:{question.client_id}"[:240], "messages": messages[-1:]}
        if self._app_id:
            body["appId"] = self._app_id
        if self._model:
            body["model"] = self._model
        return body

    async def reply(self, question: Question) -> AsyncGenerator[str, None]:
        """See `Backend.reply`."""
        try:
            async with self._client.stream("POST", self._url, json=self._body(question)) as answer:
                if answer.status_code != 200:
                    raise await _refused(answer)
                if "text/event-stream" in answer.headers.get("content-type", ""):
                    async for piece in _spoken(answer.aiter_lines()):
                        yield piece
                else:
                    yield _whole(await answer.aread())
            self._fault = None
        except httpx.HTTPError as error:
            self._fault = f"the service cannot be reached ({type(error).__name__})"
            logger.error("the chat service failed: %s", type(error).__name__)
            raise Unavailable("The chat service cannot be reached.") from None

    def fault(self) -> str | None:
        """See `Backend.fault`: what its last request came to."""
        return self._fault

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._client.aclose()


def completions_url(url: str) -> str:
    """Where to send chats. FastGPT's address stands alone; others are given up to `/v1`, or in full.

    Raises ConfigError for what is no address.
    """
    text = url.strip().rstrip("/")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None:
        raise ConfigError(
            "The address of the chat service (transports.ws_chat.api_url, CHAT_MODEL_API_URL) cannot be used.",
            hint="Write it like http://localhost:3000/, without a name or a password in it.",
        )
    if text.endswith("/chat/completions"):
        return text
    last = parts.path.rpartition("/")[2]
    return f"{text}/chat/completions" if last in ("v1", "v2") else f"{text}/api/v1/chat/completions"


async def _spoken(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """The text of an event stream. Raises GenerationFailed for an error in it."""
    kind = ""
    async for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            kind = ""
        elif name == "event":
            kind = value
        elif name == "data":
            if value == "[DONE]":
                return
            event = _json(value.encode())
            if kind == "error" or (isinstance(event, dict) and event.get("error")):
                raise _failed("an error in the stream", event)
            if kind in _SPOKEN and isinstance(event, dict):
                yield _text_of(event, "delta")


def _whole(data: bytes) -> str:
    event = _json(data)
    if not isinstance(event, dict):
        raise _failed("no object", None)
    if event.get("error") or "choices" not in event:
        raise _failed("no answer", event)
    return _text_of(event, "message")


def _text_of(event: dict[str, Any], part: str) -> str:
    """The text of the first choice: a string, or the text parts of a list."""
    match event:
        case {"choices": [dict(choice), *_]}:
            content = (choice.get(part) or {}).get("content")
        case _:
            return ""
    if isinstance(content, list):
        return "".join(_part_text(item) for item in content if isinstance(item, dict))
    return content if isinstance(content, str) else ""


def _part_text(part: dict[str, Any]) -> str:
    text = part.get("text")
    if isinstance(text, dict):  # FastGPT writes {"type": "text", "text": {"content": …}}
        text = text.get("content")
    return text if isinstance(text, str) else ""


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise _failed("no JSON", None) from None


async def _refused(answer: httpx.Response) -> LollmsError:
    data = b""
    async for piece in answer.aiter_bytes():
        data += piece
        if len(data) > LONGEST_ERROR:
            break
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        body = None
    logger.error("the chat service refused: HTTP %d, code %s", answer.status_code, _code(body))
    if answer.status_code in (408, 425, 429, 500, 502, 503, 504):
        return Unavailable("The chat service cannot answer now.")
    return GenerationFailed("The chat service refused the request.")


def _failed(what: str, body: Any) -> GenerationFailed:
    logger.error("the chat service failed: %s, code %s", what, _code(body))
    return GenerationFailed("The chat service failed.")


def _code(body: Any) -> str:
    """The code inside an error of the service, which is a number or a word and no secret."""
    if isinstance(body, dict):
        inner = body.get("error") if isinstance(body.get("error"), dict) else body
        code = inner.get("code") if isinstance(inner, dict) else None
        if isinstance(code, int | str):
            return str(code)[:40]
    return "unknown"
