"""The ASGI application of the inference side: finds the endpoint, reads the body, tells errors."""

from __future__ import annotations

from lollms_kernel.disconnect import unless_gone
from lollms_kernel.errors import NotFound

from .call import Call, Receive, Scope, Send, read_body
from .errors import FILE_NOT_FOUND, error_answer, error_headers, known
from .routes import endpoint
from .server import Inference

INDEX = b"lollms: the llama-server and OpenAI APIs. GET /health, /v1/models; POST /v1/chat/completions, /completion\n"


class InferenceApp:
    """Serves one port. Whoever goes away stops the work for the answer, streamed or not."""

    def __init__(self, server: Inference, *, main_port: bool) -> None:
        self._server = server
        self._main_port = main_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        if scope["method"] == "HEAD":
            send = _without_body(send)
        call = Call(self._server, scope, send, b"", main_port=self._main_port)
        try:
            await self._answer(call, receive)
        except ConnectionAbortedError:
            return
        except Exception as error:  # every error becomes an answer, also one that nobody foresaw
            told = known(error)
            if not call.started:
                answer = error_answer(told)
                await call.send_bytes(answer.body, answer.content_type, answer.status, error_headers(told))

    async def _answer(self, call: Call, receive: Receive) -> None:
        method, path = call.scope["method"], call.scope["path"]
        if self._server.loading is not None and not self._main_port:
            raise self._server.loading
        if path == "/" and method in ("GET", "HEAD") and not self._main_port:
            await call.send_bytes(INDEX, "text/plain; charset=utf-8")
            return
        serve = endpoint(method, path)
        if serve is None:
            raise NotFound(FILE_NOT_FOUND)
        call.body = await read_body(call.scope, receive, call.kernel.config.server.max_body_size)
        await unless_gone(receive, _run(serve(call)))


async def _run(work: object) -> None:
    await work  # type: ignore[misc]


def _without_body(send: Send) -> Send:
    async def without_body(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return without_body  # type: ignore[return-value]
