"""POST /api/v1/generate: one JSON answer, or server-sent events as the answer comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import SkipValidation
from litestar.types import ASGIApp, Receive, Scope, Send

from ..contracts import Kernel
from ..disconnect import unless_gone
from ..errors import LollmsError, ModelLoadFailed, ModelNotFound, error_from_code
from ..types import Chunk, Failed
from .decode import Order, decode
from .encode import Answer, encode_event, encode_json
from .errors import report
from .wire import GenerateAnswer, GenerateBody

logger = logging.getLogger(__name__)

EVENT_STREAM = b"text/event-stream; charset=utf-8"
_DOCS = {
    200: ResponseSpec(
        GenerateAnswer,
        generate_examples=False,
        description="The answer; with `stream: true` an event stream of StreamChunk, the last one being `final`.",
    )
}


@post(
    "/generate",
    status_code=200,
    summary="Generate text, images, audio or video",
    opt={"body": GenerateBody},
    responses=_DOCS,
    tags=["Generation"],
)
async def generate(
    kernel: NamedDependency[SkipValidation[Kernel]], request: Request[Any, Any, Any]
) -> ASGIApp:
    """Everything that a model can make, from `input_data` with roles."""
    started = time.perf_counter()
    order = await decode(await request.body(), request.scope["state"].get("tenant", ""))
    return GenerationResponse(kernel, order, started)


class GenerationResponse:
    """Generates while it answers, so that a generation never outlives its connection."""

    def __init__(self, kernel: Kernel, order: Order, started: float) -> None:
        self._kernel = kernel
        self._order = order
        self._started = started
        self._answer = Answer(order.request.id, order.notices)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. What is wrong before the first byte is raised."""
        await unless_gone(receive, self._stream(send) if self._order.stream else self._whole(send))

    async def _whole(self, send: Send) -> None:
        async with self._chunks() as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Failed):
                    raise error_from_code(chunk.code, chunk.message, hint=chunk.hint)
                self._answer.add(chunk)
        body = await self._encoded(self._whole_body)
        length = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _whole_body(self) -> bytes:
        request = self._order.request
        return encode_json(
            GenerateAnswer(
                personality=request.personality,
                request_id=request.id,
                output=self._answer.outputs(),
                execution_time=round(time.perf_counter() - self._started, 6),
            )
        )

    async def _stream(self, send: Send) -> None:
        async with self._chunks() as chunks:
            headers = [(b"content-type", EVENT_STREAM)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with aclosing(self._events(chunks)) as events:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in chunks:
                event = self._answer.add(chunk)
                if event is not None:
                    yield encode_event(event)
                if isinstance(chunk, Failed):
                    return
            yield await self._encoded(lambda: encode_event(self._answer.final()))
        except Exception as error:  # whatever went wrong, a stream that has begun must tell its end
            failed = Failed(LollmsError.code, report(error, logger))
            yield encode_event(self._answer.failure(failed))

    async def _encoded(self, encode: Callable[[], bytes]) -> bytes:
        return await asyncio.to_thread(encode) if self._answer.is_heavy else encode()

    @asynccontextmanager
    async def _chunks(self) -> AsyncIterator[AsyncIterator[Chunk]]:
        """The kernel's stream, its errors worded as clients of lollms_server know them."""
        try:
            async with self._kernel.stream(self._order.request) as chunks:
                yield chunks
        except ModelNotFound as error:
            request = self._order.request
            binding = request.binding or self._kernel.default_binding(request.generation_type)
            model = f"model '{request.model}'" if request.model else "its default model"
            message = f"Binding '{binding}' failed to load {model}."
            raise ModelLoadFailed(message, hint=error.hint) from error
        except LollmsError as error:
            if error.status != 500:
                raise
            message = f"Internal server error during generation: {error.message}"
            raise error_from_code(error.code, message, hint=error.hint) from error
