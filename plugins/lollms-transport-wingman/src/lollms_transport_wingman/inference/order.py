"""What to generate: the requests of one body, who serves them, and how to answer."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from lollms_kernel.contracts import HasSlots, Tokenizes
from lollms_kernel.errors import InvalidRequest, NotSupported
from lollms_kernel.types import GenerateRequest

from .fields import Fields
from .prompts import Prompt
from .sampling import Sampling
from .target import Target

if TYPE_CHECKING:
    from .call import Call

SOURCE = "wingman"
MAX_CHOICES = 16
"""Answers to one prompt where the binding tells no number of slots."""
MAX_ANSWERS = 256
"""Answers to all prompts of a body together."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that are answered together, in the order of their numbers."""

    target: Target
    sampling: Sampling
    requests: tuple[GenerateRequest, ...]
    prompts: int
    """How many prompts they answer; each has as many answers."""
    ping_interval: float
    after_sampling: bool = False
    is_batch: bool = False
    response_fields: tuple[str, ...] = ()
    return_progress: bool = False
    include_usage: bool = False
    verbose: bool = False


async def make_order(
    call: Call, fields: Fields, target: Target, sampling: Sampling, bases: Sequence[GenerateRequest]
) -> Order:
    """The order for `n` answers to each of `bases`. Raises InvalidRequest or NotSupported."""
    count = await _count(fields, target)
    if count * len(bases) > MAX_ANSWERS:
        raise InvalidRequest(f"The request asks for more than {MAX_ANSWERS} answers.")
    _check_grammar(sampling, target)
    options = Fields(fields.object("stream_options") or {})
    requests = [
        msgspec.structs.replace(base, id=secrets.token_hex(8), parameters={**base.parameters, **drawn})
        for base in bases
        for drawn in map(sampling.seeded, range(count))
    ]
    interval = fields.number("sse_ping_interval", -1, 86_400)
    return Order(
        target=target,
        sampling=sampling,
        requests=tuple(requests),
        prompts=len(bases),
        ping_interval=call.server.settings.ping_interval if interval is None else _ping(interval),
        after_sampling=bool(sampling.parameters.get("post_sampling_probs")),
        response_fields=tuple(fields.texts("response_fields", 256, 256) or ()),
        return_progress=fields.flag("return_progress"),
        include_usage=options.flag("include_usage"),
        verbose=fields.flag("verbose"),
    )


def base_request(call: Call, target: Target, **what: Any) -> GenerateRequest:
    """A request to the target, without what differs among several answers."""
    return GenerateRequest(
        id="",
        binding=None if target.is_default else target.instance,
        model=target.model,
        personality=target.personality,
        parameters=what.pop("parameters", {}),
        want_tokens=True,
        tenant=call.tenant,
        source=SOURCE,
        **what,
    )


async def prompt_fields(prompt: Prompt, target: Target) -> dict[str, Any]:
    """The fields of a request that continue a prompt. Raises NotSupported where the binding takes no tokens."""
    if prompt.parts is None:
        return {"raw_prompt": prompt.text or "", "raw_media": prompt.media}
    if target.has_engine or "tokens" in target.info.capabilities:
        return {"prompt_parts": prompt.parts}
    binding = target.binding
    if all(isinstance(part, str) for part in prompt.parts):
        return {"raw_prompt": "".join(map(str, prompt.parts))}
    if not isinstance(binding, Tokenizes):
        raise NotSupported(
            f"Binding instance '{target.instance}' takes no token ids as prompt.",
            hint="Send the prompt as text.",
        )
    texts = []
    for is_text, run in groupby(prompt.parts, key=lambda part: isinstance(part, str)):
        found = list(run)
        ids = [part for part in found if isinstance(part, int)]
        texts.append("".join(map(str, found)) if is_text else await binding.detokenize(ids, target.model))
    return {"raw_prompt": "".join(texts)}


async def _count(fields: Fields, target: Target) -> int:
    """How many answers to each prompt; no more than the engine has slots, as llama-server has it."""
    name = "n_cmpl" if "n_cmpl" in fields else "n"
    count = fields.integer(name, 1, 1 << 20)
    if count is None or count == 1:
        return 1
    most = MAX_CHOICES
    if isinstance(target.binding, HasSlots):
        most = max(1, len(await target.binding.slots(target.model)))
    if count > most:
        raise InvalidRequest(f"{name} is {count}; the number of answers at once is at most {most} here.")
    return count


def _check_grammar(sampling: Sampling, target: Target) -> None:
    """A grammar that nobody enforces would be worse than an error."""
    if target.has_engine or not sampling.parameters.get("grammar"):
        return
    if "grammar" not in target.info.capabilities:
        raise NotSupported(
            f"Binding instance '{target.instance}' cannot hold its answers to a grammar.",
            hint="Use a llama.cpp instance, or `response_format`.",
        )


def _ping(interval: float) -> float:
    return interval if interval >= 0.05 else 86_400.0
