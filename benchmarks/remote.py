"""What a binding to a service costs beside the vendor's own library: both ask the same fake by turns.

Processor time is that of the asking thread alone; the fake runs in another one of the same process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager

from lollms_kernel.contracts import Binding
from lollms_kernel.testing import make_binding
from lollms_kernel.types import GenerateRequest, Message, TextDelta

from .figures import Figure

Answered = Callable[[str], Awaitable[int]]
"""Asks with a prompt and gives the number of pieces of text that came."""


def remote_figures() -> Iterator[Figure]:
    """All of them, service by service."""
    yield from asyncio.run(ollama())
    yield from asyncio.run(openai())
    yield from asyncio.run(gemini())


async def ollama() -> list[Figure]:
    """The Ollama binding against `ollama.AsyncClient`."""
    from ollama import AsyncClient

    from lollms_binding_ollama import OllamaBinding
    from lollms_kernel.testing.fakes.ollama import FakeOllama

    with FakeOllama() as fake:
        client = AsyncClient(fake.url)

        async def direct(prompt: str) -> int:
            turns = [{"role": "user", "content": prompt}]
            parts = await client.chat("llama3.2", turns, stream=True, options={"num_predict": 1_000_000})
            return len([part async for part in parts if part.message.content])

        async with client, _opened(make_binding(OllamaBinding, {"host": fake.url})) as binding:
            return await compare("ollama", direct, _through(binding, "llama3.2"))


async def openai() -> list[Figure]:
    """The OpenAI binding against `openai.AsyncOpenAI`."""
    from openai import AsyncOpenAI

    from lollms_binding_openai import OpenAIBinding
    from lollms_kernel.testing.fakes.openai import FakeOpenAI, OpenAIModel

    with FakeOpenAI([OpenAIModel(id="gpt-4o-mini", context_size=1_000_000)]) as fake:
        client = AsyncOpenAI(base_url=fake.base_url, api_key="none")

        async def direct(prompt: str) -> int:
            events = await client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": prompt}],
                stream=True,
                stream_options={"include_usage": True},
                max_tokens=1_000_000,
            )
            return len([event async for event in events if event.choices and event.choices[0].delta.content])

        async with client, _opened(make_binding(OpenAIBinding, {"base_url": fake.base_url})) as binding:
            return await compare("openai", direct, _through(binding, "gpt-4o-mini"))


async def gemini() -> list[Figure]:
    """The Gemini binding against `google.genai.Client`."""
    from google.genai import Client, types

    from lollms_binding_gemini import GeminiBinding
    from lollms_kernel.testing.fakes.gemini import FakeGemini
    from lollms_kernel.testing.fakes.gemini_models import GeminiModel

    with FakeGemini([GeminiModel(name="gemini-2.0-flash", output_token_limit=1_000_000)]) as fake:
        client = Client(api_key="none", http_options=types.HttpOptions(base_url=fake.url))
        settings = {"base_url": fake.url, "default_model": "gemini-2.0-flash"}
        harms = ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
        config = types.GenerateContentConfig(
            max_output_tokens=1_000_000,
            safety_settings=[  # as the binding sends them
                types.SafetySetting(
                    category=types.HarmCategory(f"HARM_CATEGORY_{harm}"),
                    threshold=types.HarmBlockThreshold.BLOCK_MEDIUM_AND_ABOVE,
                )
                for harm in harms
            ],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )

        async def direct(prompt: str) -> int:
            answers = await client.aio.models.generate_content_stream(
                model="gemini-2.0-flash", contents=prompt, config=config
            )
            return len([answer async for answer in answers if answer.text])

        async with client.aio, _opened(make_binding(GeminiBinding, settings)) as binding:
            figures = await compare("gemini", direct, _through(binding, "gemini-2.0-flash"))
        client.close()
        return figures


@asynccontextmanager
async def _opened(binding: Binding) -> AsyncIterator[Binding]:
    await binding.open()
    try:
        yield binding
    finally:
        await binding.close()


def _through(binding: Binding, model: str) -> Answered:
    async def ask(prompt: str) -> int:
        request = GenerateRequest(
            id="bench",
            model=model,
            messages=(Message("user", prompt),),
            parameters={"max_tokens": 1_000_000, "context_size": 4096},
        )
        async with aclosing(binding.generate(request)) as chunks:
            return len([chunk async for chunk in chunks if isinstance(chunk, TextDelta)])

    return ask


async def compare(
    name: str, direct: Answered, bound: Answered, *, rounds: int = 200, streams: int = 7, chunks: int = 2000
) -> list[Figure]:
    """Latency and processor time that `bound` adds to `direct`; both are called by turns, after a warm-up."""
    short = await _by_turns(direct, bound, "hello", 1, rounds)
    long = await _by_turns(direct, bound, "word " * (chunks - 1) + "word", chunks, streams)
    direct_cpu, bound_cpu = ([cpu / chunks * 1e6 for _, cpu in side] for side in long)
    return [
        Figure(f"{name}: answer of one piece, the library alone", "µs", tuple(w * 1e6 for w, _ in short[0])),
        Figure(
            f"{name}: latency added by the binding",
            "µs",
            _added([w for w, _ in short[0]], [w for w, _ in short[1]]),
        ),
        Figure(
            f"{name}: CPU per answer added by the binding",
            "µs",
            _added([c for _, c in short[0]], [c for _, c in short[1]]),
        ),
        Figure(f"{name}: CPU per chunk, the library alone", "µs", tuple(direct_cpu)),
        Figure(
            f"{name}: CPU per chunk added by the binding",
            "µs",
            tuple(mine - theirs for mine, theirs in zip(bound_cpu, direct_cpu, strict=True)),
        ),
    ]


async def _by_turns(
    direct: Answered, bound: Answered, prompt: str, pieces: int, rounds: int
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Wall and processor seconds of each call, for both sides."""
    sides: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    warm_up = max(1, rounds // 10)
    for number in range(rounds + warm_up):
        for side, ask in zip(sides, (direct, bound), strict=True):
            wall, cpu = time.perf_counter(), time.thread_time()
            came = await ask(prompt)
            taken = time.perf_counter() - wall, time.thread_time() - cpu
            if came != pieces:
                raise RuntimeError(f"{came} of {pieces} pieces came")
            if number >= warm_up:
                side.append(taken)
    return sides


def _added(theirs: list[float], mine: list[float]) -> tuple[float, ...]:
    """The differences in microseconds."""
    return tuple((after - before) * 1e6 for before, after in zip(theirs, mine, strict=True))
