"""`POST /v1/completions`: OpenAI's text completion."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any

from lollms_kernel.types import Chunk, Finished, Progress, TextDelta, Usage

from .call import Call
from .choice import Choice
from .generate import Shape, respond
from .native import progress, prompt_order
from .order import Order
from .probabilities import openai as openai_probabilities

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def answer_id() -> str:
    """The id of an answer."""
    return "chatcmpl-" + "".join(secrets.choice(_LETTERS) for _ in range(32))


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage`."""
    return {
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def usage_of(choices: list[Choice], prompts: int) -> Usage:
    """What all answers took: each prompt counts once, however many answers it got."""
    if not choices:
        return Usage()
    step = max(1, len(choices) // max(prompts, 1))
    firsts = choices[::step]
    return Usage(
        sum(choice.usage.prompt_tokens for choice in firsts),
        sum(choice.usage.completion_tokens for choice in choices),
        sum(choice.usage.cached_tokens for choice in firsts),
    )


class OpenAIShape(Shape):
    """What OpenAI's two shapes have in common."""

    ends_with_done = True
    kind = ""
    part_kind = ""

    def __init__(self, order: Order, fingerprint: str) -> None:
        super().__init__(order)
        self.fingerprint = fingerprint
        self.identity = answer_id()
        self.created = int(time.time())

    def envelope(self, choices: list[dict[str, Any]], kind: str) -> dict[str, Any]:
        """An answer or an event around choices."""
        return {
            "id": self.identity,
            "object": kind,
            "created": self.created,
            "model": self.order.target.shown,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }

    def with_end(self, told: dict[str, Any], choices: list[Choice], *, usage: bool = True) -> dict[str, Any]:
        """The envelope with what is known at the end."""
        if usage:
            told["usage"] = usage_object(usage_of(choices, self.order.prompts))
        told["timings"] = choices[-1].timings()
        notices = [notice for choice in choices for notice in choice.told()]
        if notices:
            told["notices"] = notices
        return told

    def logprobs(self, probabilities: Any) -> dict[str, Any] | None:
        """OpenAI's `logprobs`; None where nobody asked."""
        if not self.order.sampling.n_probs or not probabilities:
            return None
        return openai_probabilities(probabilities, after_sampling=self.order.after_sampling)


class TextShape(OpenAIShape):
    """`text_completion`."""

    kind = part_kind = "text_completion"

    def whole(self, choices: list[Choice]) -> Any:
        """One choice for each answer."""
        told = [
            {
                "text": choice.text,
                "index": choice.index,
                "logprobs": self.logprobs(choice.probabilities),
                "finish_reason": choice.reason,
            }
            for choice in choices
        ]
        return self.with_end(self.envelope(told, self.kind), choices)

    def parts(self, choice: Choice, chunk: Chunk) -> Iterable[dict[str, Any]]:
        """Text as it comes, and the reason at the end."""
        if isinstance(chunk, TextDelta):
            yield self._part(choice, chunk.text, None, self.logprobs(chunk.probabilities))
        elif isinstance(chunk, Progress) and self.order.return_progress:
            yield {**self._part(choice, "", None, None), "prompt_progress": progress(chunk)}
        elif isinstance(chunk, Finished):
            yield self.with_end(self._part(choice, "", choice.reason, None), [choice])

    def _part(self, choice: Choice, text: str, reason: str | None, logprobs: Any) -> dict[str, Any]:
        told = {"text": text, "index": choice.index, "logprobs": logprobs, "finish_reason": reason}
        return self.envelope([told], self.part_kind)


async def completions(call: Call) -> None:
    """The endpoint."""
    fields = await call.json()
    order = await prompt_order(call, fields)
    await respond(call, TextShape(order, call.server.build_info))
