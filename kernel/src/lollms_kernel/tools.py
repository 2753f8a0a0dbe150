"""Functions of this server as tools of a model: told to it, called for it, and answered from, for some rounds."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from .contracts import Function
from .errors import LollmsError
from .types import (
    Chunk,
    Finished,
    GenerateRequest,
    Info,
    Message,
    ModelInfo,
    Notice,
    TextDelta,
    ToolCall,
    Usage,
)

logger = logging.getLogger(__name__)

MAX_RESULT = 64 * 1024
"""Characters of a result that a model is shown."""
MAX_CALLS = 16
"""Calls of one round that are carried out."""
SHOWN = 2000
"""Characters of arguments and results that a client is told of."""

Generate = Callable[[GenerateRequest], AsyncGenerator[Chunk, None]]


class Tools:
    """The functions of this server that one request offers to a model, under names that every service takes."""

    def __init__(self, request: GenerateRequest, functions: Mapping[str, Function]) -> None:
        named = dict.fromkeys(item for item in request.functions if isinstance(item, str))
        self.unknown = [name for name in named if name not in functions]
        self.others = tuple(item for item in request.functions if not isinstance(item, str))
        """Those that the client described itself, and answers itself."""
        self._by_name: dict[str, Function] = {}
        taken = {_described_name(item) for item in self.others}
        for name in named:
            if name in functions:
                self._by_name[_free_name(name, taken)] = functions[name]

    def __bool__(self) -> bool:
        return bool(self._by_name)

    @property
    def names(self) -> list[str]:
        """The functions by their names on this server."""
        return [function.name for function in self._by_name.values()]

    def described(self) -> tuple[dict[str, Any], ...]:
        """As OpenAI describes tools."""
        return tuple(
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": function.description,
                    "parameters": dict(function.schema),
                },
            }
            for name, function in self._by_name.items()
        )

    def has(self, call: ToolCall) -> bool:
        """Whether the call is for a function of this server."""
        return call.name in self._by_name

    def name_of(self, call: ToolCall) -> str:
        """What this server calls the function."""
        return self._by_name[call.name].name

    async def answer(self, call: ToolCall) -> str:
        """What the function gives as text for the model; an error is an answer too, so that it can mend its call."""
        function = self._by_name[call.name]
        try:
            arguments = msgspec.json.decode(call.arguments or "{}")
            if not isinstance(arguments, dict):
                raise msgspec.DecodeError("expected an object")
            result = await function.call(arguments)
            text = result if isinstance(result, str) else msgspec.json.encode(result, enc_hook=str).decode()
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            return _refusal(f"The arguments are not valid JSON: {error}")
        except LollmsError as error:
            return _refusal(error.detail)
        except Exception as error:  # a stranger's code; the model and the log are told
            logger.warning("function %s failed", function.name, exc_info=True)
            return _refusal(f"{type(error).__name__}: {error}")
        if len(text) > MAX_RESULT:
            return f"{text[:MAX_RESULT]}\n[cut: the result has {len(text)} characters]"
        return text


async def generate_with_tools(
    request: GenerateRequest, info: ModelInfo, functions: Mapping[str, Function], rounds: int, once: Generate
) -> AsyncGenerator[Chunk, None]:
    """The answer of `once`, with the calls of this server's functions carried out and answered from.

    Calls of functions that the client described go to the client, which then has the word.
    """
    if not any(isinstance(item, str) for item in request.functions):
        async with aclosing(once(request)) as chunks:
            async for chunk in chunks:
                yield chunk
        return
    tools = Tools(request, functions)
    notices: list[Notice] = []
    if tools.unknown:
        names = ", ".join(name[:80] for name in tools.unknown)
        notices.append(Notice("functions_unknown", f"Functions that this server does not have: {names}."))
    able = "tools" in info.capabilities
    if tools and not able:
        message = f"Model '{info.name}' cannot call functions; it was not told of: {', '.join(tools.names)}."
        notices.append(Notice("functions_not_supported", message, {"names": tools.names}))
    plain = msgspec.structs.replace(request, functions=tools.others)
    offered = msgspec.structs.replace(plain, functions=(*tools.others, *tools.described()))
    answer = _rounds(offered, plain, tools, rounds, once) if tools and able else once(plain)
    async with aclosing(answer) as chunks:
        first = await anext(chunks, None)  # what is wrong before it must be raised and not follow a notice
        for notice in notices:
            yield notice
        if first is not None:
            yield first
        async for chunk in chunks:
            yield chunk


async def _rounds(
    request: GenerateRequest, plain: GenerateRequest, tools: Tools, rounds: int, once: Generate
) -> AsyncGenerator[Chunk, None]:
    usage: list[Usage] = []
    for _ in range(rounds):
        turn = _Turn(tools)
        async with aclosing(once(request)) as chunks:
            async for chunk in chunks:
                shown = turn.take(chunk)
                if shown is not None:
                    yield shown
        ended = turn.finished
        if ended is None:
            return  # it failed, and has said so
        if ended.usage is not None:
            usage.append(ended.usage)
        if not turn.own:
            yield _with_usage(ended, usage)
            return
        if turn.has_foreign:
            names = ", ".join(tools.name_of(call) for call in turn.own)
            message = f"Calls of this server's functions wait until the client has answered its own: {names}."
            yield Notice("functions_deferred", message)
            yield _with_usage(ended, usage)
            return
        calls = turn.own[:MAX_CALLS]
        for call in calls:
            yield _told("function_call", tools.name_of(call), "arguments", call.arguments)
        results = await _all_answers(tools, calls)
        for call, result in zip(calls, results, strict=True):
            yield _told("function_result", tools.name_of(call), "result", result)
        request = msgspec.structs.replace(
            request, messages=(*request.messages, *_turns(turn.text, calls, results))
        )
    message = f"The model called functions in {rounds} rounds; it had to answer without any more."
    yield Notice("function_rounds_used_up", message, {"rounds": rounds})
    last = msgspec.structs.replace(plain, messages=request.messages)
    async with aclosing(once(last)) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, Finished):
                chunk = _with_usage(chunk, [*usage, *([chunk.usage] if chunk.usage else [])])
            yield chunk


class _Turn:
    """What a model says in one round."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._text: list[str] = []
        self.own: list[ToolCall] = []
        self.has_foreign = False
        self.finished: Finished | None = None

    @property
    def text(self) -> str:
        return "".join(self._text)

    def take(self, chunk: Chunk) -> Chunk | None:
        """Note the chunk; what of it the client is to get."""
        match chunk:
            case ToolCall() if self._tools.has(chunk):
                self.own.append(chunk)
                return None
            case ToolCall():
                self.has_foreign = True
            case Finished():
                self.finished = chunk
                return None
            case TextDelta():
                self._text.append(chunk.text)
        return chunk


async def _all_answers(tools: Tools, calls: Sequence[ToolCall]) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(tools.answer(call)) for call in calls]
    return [task.result() for task in tasks]


def _turns(text: str, calls: Sequence[ToolCall], results: Sequence[str]) -> list[Message]:
    asked = Message("assistant", text, tool_calls=tuple(calls))
    answered = [
        Message("tool", result, tool_call_id=call.id, name=call.name)
        for call, result in zip(calls, results, strict=True)
    ]
    return [asked, *answered]


def _told(status: str, name: str, what: str, text: str) -> Info:
    return Info({"status": status, "name": name, what: text[:SHOWN]})


def _refusal(text: str) -> str:
    return msgspec.json.encode({"error": text}).decode()


def _with_usage(finished: Finished, usage: Sequence[Usage]) -> Finished:
    """The end of the last round, with the tokens of all of them."""
    if len(usage) < 2:
        return finished
    total = Usage(
        sum(item.prompt_tokens for item in usage),
        sum(item.completion_tokens for item in usage),
        sum(item.cached_tokens for item in usage),
    )
    return msgspec.structs.replace(finished, usage=total)


def _described_name(item: Any) -> str:
    inner = item.get("function", item) if isinstance(item, dict) else None
    return str(inner.get("name")) if isinstance(inner, dict) else ""


def _free_name(name: str, taken: set[str]) -> str:
    """A name of letters, digits, `_` and `-`, 64 at most, which is all that some services take."""
    base = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:60]
    free = next(
        candidate for n in range(1, 1000) if (candidate := base if n == 1 else f"{base}_{n}") not in taken
    )
    taken.add(free)
    return free
