"""What OpenAI's and llama-server's shapes cost: the dummy binding over HTTP, next to the server's own REST.

Both are asked over kept connections, by turns, so that what else the machine does hits both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from lollms_kernel.testing import ServerProcess

from .client import Address, connection, receive_answer, receive_until, send
from .figures import Figure, cpu_seconds

REST = "/api/v1/generate"
CHAT = "/v1/chat/completions"
NATIVE = "/completion"


def openai_figures() -> Iterator[Figure]:
    """Latency of short answers, and processor time of each streamed chunk."""
    yield from _latency()
    yield from _chunks()


def _bodies(stream: bool) -> dict[str, Any]:
    item = {"type": "text", "role": "user_prompt", "data": "hello"}
    turn = {"role": "user", "content": "hello"}
    return {
        REST: {"input_data": [item], "stream": stream},
        CHAT: {"messages": [turn], "stream": stream},
        NATIVE: {"prompt": "hello", "stream": stream},
    }


def _latency(rounds: int = 400) -> list[Figure]:
    samples: dict[str, list[float]] = {REST: [], CHAT: [], NATIVE: []}
    with _server({"reply": "hello"}) as server, connection(_address(server)) as opened:
        for _ in range(rounds):
            for path, body in _bodies(stream=False).items():
                started = time.perf_counter()
                send(opened, path, body)
                receive_answer(opened)
                samples[path].append(1e6 * (time.perf_counter() - started))
    warm = slice(rounds // 10, None)
    return [
        Figure("answer of the dummy binding over LoLLMs REST", "µs", tuple(samples[REST][warm])),
        Figure("the same over /v1/chat/completions", "µs", tuple(samples[CHAT][warm])),
        Figure("the same over /completion", "µs", tuple(samples[NATIVE][warm])),
    ]


def _chunks(rounds: int = 5, chunks: int = 4000) -> list[Figure]:
    ends = {REST: b'"type":"final"', CHAT: b"[DONE]", NATIVE: b'"stop":true'}
    marks = {REST: b'"type":"chunk"', CHAT: b'"delta":{"content":"', NATIVE: b'"stop":false'}
    samples: dict[str, list[float]] = {REST: [], CHAT: [], NATIVE: []}
    with _server({"chunks": ["token "] * chunks}) as server:
        for _ in range(rounds + 1):
            for path, body in _bodies(stream=True).items():
                before = cpu_seconds(server.pid)
                with connection(_address(server)) as opened:
                    send(opened, path, body)
                    received = receive_until(opened, ends[path])
                if received.count(marks[path]) != chunks:
                    raise RuntimeError(f"{path} streamed {received.count(marks[path])} of {chunks} chunks")
                samples[path].append(1e6 * (cpu_seconds(server.pid) - before) / chunks)
    return [
        Figure(
            "CPU per streamed chunk of the dummy binding over LoLLMs REST", "µs", tuple(samples[REST][1:])
        ),
        Figure("the same over /v1/chat/completions", "µs", tuple(samples[CHAT][1:])),
        Figure("the same over /completion", "µs", tuple(samples[NATIVE][1:])),
    ]


def _server(dummy: dict[str, object]) -> ServerProcess:
    config = {"defaults": {"ttt_binding": "dummy"}}
    return ServerProcess(config, {"dummy": {"type": "dummy_binding", **dummy}})


def _address(server: ServerProcess) -> Address:
    return Address("127.0.0.1", server.port)
