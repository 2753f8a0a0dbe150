"""`/completion`, `/completions` and `/infill`: llama-server's own shape, with the keys that older versions had."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from lollms_kernel.types import Chunk, Finished, Progress, TextDelta

from .call import Call
from .choice import Choice, passing_timings
from .fields import Fields
from .generate import Shape, respond
from .order import Order, base_request, make_order, prompt_fields
from .probabilities import native as native_probabilities
from .prompts import read_prompts
from .sampling import read_sampling
from .target import choose


class NativeShape(Shape):
    """`{"index", "content", "tokens", "stop", …}`."""

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self._started: float | None = None

    def whole(self, choices: list[Choice]) -> Any:
        """One object, or an array of them where there are several answers."""
        results = [self._selected(self.result(choice)) for choice in choices]
        return results if self.order.is_batch or len(results) > 1 else results[0]

    def parts(self, choice: Choice, chunk: Chunk) -> Iterable[dict[str, Any]]:
        """The events that tell of a chunk."""
        if isinstance(chunk, TextDelta):
            for delta in single(chunk):
                yield self._part(choice, delta)
        elif isinstance(chunk, Progress):
            if self.order.return_progress:
                yield self._progress(choice, chunk)
        elif isinstance(chunk, Finished):
            last = {**self.result(choice), "content": "", "tokens": []}
            last.pop("completion_probabilities", None)
            yield self._selected(last)

    def result(self, choice: Choice) -> dict[str, Any]:
        """A finished answer."""
        order, engine, usage = self.order, choice.engine, choice.usage
        text, stop_type = choice.text, choice.stop_type
        told: dict[str, Any] = {
            "index": choice.index,
            "content": text,
            "tokens": choice.tokens if order.sampling.return_tokens else [],
            "id_slot": engine.get("id_slot", -1),
            "stop": True,
            "model": order.target.shown,
            "tokens_predicted": usage.completion_tokens,
            "tokens_evaluated": usage.prompt_tokens,
            "generation_settings": {**order.sampling.echo(), **self._settings(engine)},
            "prompt": engine.get("prompt", order.requests[choice.index].prompt),
            "has_new_line": engine.get("has_new_line", "\n" in text),
            "truncated": engine.get("truncated", False),
            "stop_type": stop_type,
            "stopping_word": engine.get("stopping_word", ""),
            "tokens_cached": engine.get("tokens_cached", 0),
            "timings": choice.timings(),
            "stopped_eos": stop_type == "eos",
            "stopped_word": stop_type == "word",
            "stopped_limit": stop_type == "limit",
        }
        if order.sampling.n_probs and choice.probabilities:
            told["completion_probabilities"] = native_probabilities(
                choice.probabilities, after_sampling=order.after_sampling
            )
        if choice.notices:
            told["notices"] = choice.told()
        return told

    def _settings(self, engine: dict[str, Any]) -> dict[str, Any]:
        """What the engine says that it used; the limit and `stream` are what the client asked for."""
        told = engine.get("generation_settings")
        if not isinstance(told, dict):
            return {}
        own = self.order.sampling.echo()
        asked = {"stream": own["stream"], "timings_per_token": own["timings_per_token"]}
        if self.order.sampling.limit is not None:
            asked |= {"n_predict": own["n_predict"], "max_tokens": own["max_tokens"]}
        return {**told, **asked}

    def _part(self, choice: Choice, chunk: TextDelta) -> dict[str, Any]:
        if self._started is None:
            self._started = time.perf_counter()
        told: dict[str, Any] = {
            "index": choice.index,
            "content": chunk.text,
            "tokens": chunk.tokens,
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": choice.generated,
            "tokens_evaluated": choice.prompt_tokens,
            "multimodal": False,
        }
        if chunk.probabilities:
            told["completion_probabilities"] = native_probabilities(
                chunk.probabilities, after_sampling=self.order.after_sampling
            )
        if self.order.sampling.timings_per_token:
            told["timings"] = passing_timings(choice.generated, time.perf_counter() - self._started)
        return told

    def _progress(self, choice: Choice, chunk: Progress) -> dict[str, Any]:
        return {
            "index": choice.index,
            "content": "",
            "tokens": [],
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": 0,
            "tokens_evaluated": chunk.total,
            "prompt_progress": progress(chunk),
        }

    def _selected(self, result: dict[str, Any]) -> dict[str, Any]:
        """Only the `response_fields`, where the client names some."""
        if not self.order.response_fields:
            return result
        found: dict[str, Any] = {}
        for path in self.order.response_fields:
            value: Any = result
            for step in path.split("/"):
                if not isinstance(value, dict) or step not in value:
                    break
                value = value[step]
            else:
                found[path] = value
        return found


def single(chunk: TextDelta) -> list[TextDelta]:
    """The deltas of one token each where probabilities are told, which clients expect one by one."""
    entries = chunk.probabilities
    if len(entries) < 2 or b"".join(entry.piece for entry in entries) != chunk.text.encode():
        return [chunk]
    try:
        return [TextDelta(entry.piece.decode(), (entry.id,), (entry,)) for entry in entries]
    except UnicodeDecodeError:
        return [chunk]


def progress(chunk: Progress) -> dict[str, Any]:
    """llama-server's `prompt_progress`."""
    return {
        "total": chunk.total,
        "cache": chunk.details.get("cache", 0),
        "processed": chunk.step,
        "time_ms": chunk.details.get("time_ms", 0),
    }


async def completion(call: Call) -> None:
    """`POST /completion` and `/completions`."""
    fields = await call.json()
    order = await prompt_order(call, fields)
    await respond(call, NativeShape(order))


async def prompt_order(call: Call, fields: Fields, **more: Any) -> Order:
    """The order to continue the prompts of a body."""
    prompts, is_batch = read_prompts(fields.get("prompt"))
    target = await choose(call, fields)
    sampling = read_sampling(fields)
    parameters = counted_prompt(sampling.stream and target.has_engine)
    bases = [
        base_request(
            call,
            target,
            raw_thoughts=True,
            parameters=parameters,
            **await prompt_fields(prompt, target),
        )
        for prompt in prompts
    ]
    order = await make_order(call, fields, target, sampling, bases)
    return msgspec.structs.replace(order, is_batch=is_batch)


def counted_prompt(wanted: bool) -> dict[str, Any]:
    """Let an engine tell the prompt's size before the first token, which parts of streams show."""
    return {"return_progress": True} if wanted else {}
