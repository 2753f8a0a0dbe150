"""`POST /v1/chat/completions`: OpenAI's chat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Progress, TextDelta, ThoughtDelta, ToolCall

from .call import Call
from .choice import Choice
from .constraints import check_size, read_tools, response_format
from .fields import Fields, wrong
from .generate import respond
from .messages import read_messages
from .native import NativeShape, counted_prompt, progress, single
from .openai_text import OpenAIShape, usage_object, usage_of
from .order import Order, base_request, make_order
from .sampling import Sampling, read_sampling
from .target import Target, choose, fetches_images

REASONING_FORMATS = ("none", "auto", "deepseek", "deepseek-legacy")
TOP_LOGPROBS = 20


class ChatShape(OpenAIShape):
    """`chat.completion` and its chunks."""

    kind = "chat.completion"
    part_kind = "chat.completion.chunk"

    def __init__(
        self, order: Order, fingerprint: str, *, null_content: bool = True, tagged: bool = False
    ) -> None:
        super().__init__(order, fingerprint)
        self._null_content = null_content
        self._tagged = tagged
        """Whether reasoning also stands in the content between its tags (`deepseek-legacy`)."""
        self._begun: set[int] = set()
        self._thinking: set[int] = set()

    # --- whole ---

    def whole(self, choices: list[Choice]) -> Any:
        """One choice with a message for each answer."""
        told = []
        for choice in choices:
            entry: dict[str, Any] = {
                "finish_reason": choice.reason,
                "index": choice.index,
                "message": self._message(choice),
            }
            if (logprobs := self.logprobs(choice.probabilities)) is not None:
                entry["logprobs"] = logprobs
            told.append(entry)
        answer = self.with_end(self.envelope(told, self.kind), choices)
        if self.order.verbose:
            answer["__verbose"] = NativeShape(self.order).result(choices[0])
        return answer

    def _message(self, choice: Choice) -> dict[str, Any]:
        text = choice.text
        if self._tagged and choice.thought:
            text = f"<think>{choice.thought}</think>{text}"
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if choice.thought:
            message["reasoning_content"] = choice.thought
        if choice.calls:
            message["content"] = text if text.strip() else None
            message["tool_calls"] = [_whole_call(call) for call in merged_calls(choice.calls)]
        return message

    # --- streamed ---

    def parts(self, choice: Choice, chunk: Chunk) -> Iterable[dict[str, Any]]:
        """The role, then deltas that are never empty, then the reason."""
        match chunk:
            case TextDelta():
                yield from self._beginning(choice)
                closing = self._closed(choice)
                for delta in single(chunk) if self.order.sampling.n_probs else (chunk,):
                    logprobs = self.logprobs(delta.probabilities)
                    text, closing = closing + delta.text, ""
                    if text or logprobs is not None:
                        yield self._part(choice, {"content": text}, logprobs=logprobs)
            case ThoughtDelta():
                yield from self._beginning(choice)
                if chunk.text:
                    yield self._part(
                        choice, {"reasoning_content": chunk.text, **self._opened(choice, chunk.text)}
                    )
            case ToolCall():
                yield from self._beginning(choice)
                yield self._part(choice, {"tool_calls": [_part_of_call(choice, chunk)]})
            case Progress() if self.order.return_progress:
                yield from self._beginning(choice)
                yield {**self._part(choice, {}), "prompt_progress": progress(chunk)}
            case Finished():
                yield from self._beginning(choice)
                last = self._part(choice, self._rest(choice), reason=choice.reason)
                if not self.order.include_usage:
                    last = self.with_end(last, [choice], usage=False)
                yield last

    def closing(self, choices: list[Choice]) -> Iterable[dict[str, Any]]:
        """The tokens that it took, where the client wants to know."""
        if self.order.include_usage:
            told = self.with_end(self.envelope([], self.part_kind), choices, usage=False)
            yield {**told, "usage": usage_object(usage_of(choices, 1))}

    def _beginning(self, choice: Choice) -> Iterable[dict[str, Any]]:
        if choice.index in self._begun:
            return
        self._begun.add(choice.index)
        role: dict[str, Any] = {"role": "assistant"}
        yield self._part(choice, {**role, "content": None} if self._null_content else role)

    def _opened(self, choice: Choice, text: str) -> dict[str, str]:
        if not self._tagged:
            return {}
        begins = choice.index not in self._thinking
        self._thinking.add(choice.index)
        return {"content": f"<think>{text}" if begins else text}

    def _closed(self, choice: Choice) -> str:
        if choice.index not in self._thinking:
            return ""
        self._thinking.discard(choice.index)
        return "</think>"

    def _rest(self, choice: Choice) -> dict[str, str]:
        closing = self._closed(choice)
        return {"content": closing} if closing else {}

    def _part(
        self, choice: Choice, delta: dict[str, Any], *, reason: str | None = None, logprobs: Any = None
    ) -> dict[str, Any]:
        told: dict[str, Any] = {"finish_reason": reason, "index": choice.index, "delta": delta}
        if logprobs is not None:
            told["logprobs"] = logprobs
        return self.envelope([told], self.part_kind)


def merged_calls(calls: list[ToolCall]) -> list[ToolCall]:
    """Calls whose arguments came in pieces, put together."""
    merged: dict[int, ToolCall] = {}
    for call in calls:
        before = merged.get(call.index)
        if before is None or (call.id and before.id and call.id != before.id):
            merged[call.index if before is None else len(merged)] = call
        else:
            merged[call.index] = msgspec.structs.replace(
                before,
                id=before.id or call.id,
                name=before.name or call.name,
                arguments=before.arguments + call.arguments,
            )
    return list(merged.values())


def _whole_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"type": "function", "id": call.id, "function": function}


def _part_of_call(choice: Choice, call: ToolCall) -> dict[str, Any]:
    """The first piece of a call names it, later ones only go on with its arguments."""
    is_first = sum(other.index == call.index for other in choice.calls) == 1
    if not is_first:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    return {"index": call.index, **_whole_call(call)}


async def chat_completions(call: Call) -> None:
    """The endpoint."""
    fields = await call.json()
    order, tagged = await chat_order(call, fields)
    shape = ChatShape(
        order,
        call.server.build_info,
        null_content=call.server.settings.null_content,
        tagged=tagged,
    )
    await respond(call, shape)


async def chat_order(call: Call, fields: Fields) -> tuple[Order, bool]:
    """What a body asks for, and whether reasoning stands in the content too."""
    if "messages" not in fields:
        raise InvalidRequest("'messages' is required")
    target = await choose(call, fields)
    sampling = _with_logprobs(read_sampling(fields), fields)
    reasoning = fields.choice("reasoning_format", REASONING_FORMATS)
    base = conversation_request(call, fields, target, sampling, reasoning)
    order = await make_order(call, fields, target, sampling, [base])
    return order, reasoning == "deepseek-legacy"


def conversation_request(
    call: Call, fields: Fields, target: Target, sampling: Sampling, reasoning: str | None
) -> GenerateRequest:
    """The request that answers the conversation of a body."""
    conversation = read_messages(fields.get("messages"), fetches=fetches_images(target.binding))
    tools, choice = _tools(fields)
    parameters = {**template_parameters(fields), **counted_prompt(sampling.stream and target.has_engine)}
    if reasoning is not None and target.has_engine:
        parameters["reasoning_format"] = reasoning
    if choice is not None and tools:
        parameters["tool_choice"] = choice
    if "parallel_tool_calls" in fields and tools:
        parameters["parallel_tool_calls"] = fields.flag("parallel_tool_calls")
    wanted = response_format(fields.get("response_format"))
    if wanted is not None:
        if "grammar" in fields or "json_schema" in fields:
            raise InvalidRequest(
                'Either "response_format" or "grammar" and "json_schema" may be given, not both.'
            )
        parameters["response_format"] = wanted
    if "grammar" in fields and tools and choice != "none":
        raise InvalidRequest("Cannot use custom grammar constraints with tools.")
    if "grammar" in fields and "json_schema" in fields:
        raise InvalidRequest('Cannot use both "grammar" and "json_schema".')
    return base_request(
        call,
        target,
        messages=conversation.turns,
        system=conversation.system,
        functions=() if choice == "none" else tools,
        raw_thoughts=reasoning == "none",
        parameters=parameters,
    )


def template_parameters(fields: Fields) -> dict[str, Any]:
    """What a body tells the chat template."""
    told: dict[str, Any] = {
        name: fields.flag(name)
        for name in ("add_generation_prompt", "continue_final_message")
        if name in fields
    }
    kwargs = fields.object("chat_template_kwargs")
    if kwargs:
        check_size(kwargs, "chat_template_kwargs")
        told["chat_template_kwargs"] = kwargs
    effort = fields.text("reasoning_effort", 64)
    if effort is not None:
        told["reasoning_effort"] = effort
    return told


def _tools(fields: Fields) -> tuple[tuple[dict[str, Any], ...], Any]:
    """The tools, and which of them may or must be used."""
    given, choice = fields.get("tools"), fields.get("tool_choice")
    if given is None and isinstance(fields.get("functions"), list):  # the first way in which OpenAI had tools
        given = [{"type": "function", "function": function} for function in fields.get("functions")]
        choice = fields.get("function_call")
        if isinstance(choice, dict):
            choice = {"type": "function", "function": choice}
    tools = read_tools(given)
    if choice is None or choice in ("auto", "none", "required"):
        return tools, choice
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise wrong("tool_choice", 'auto, none, required or {"type": "function", "function": {"name": …}}')
    if all(tool["function"]["name"] != name for tool in tools):
        raise InvalidRequest(f"Field 'tool_choice': there is no tool '{name[:60]}'.")
    return tools, {"type": "function", "function": {"name": name}}


def _with_logprobs(sampling: Sampling, fields: Fields) -> Sampling:
    """`logprobs` is a truth value in chats, and `top_logprobs` the number."""
    top = fields.integer("top_logprobs", 0, 1 << 20)
    asked = fields.get("logprobs")
    if asked is None or (isinstance(asked, int) and not isinstance(asked, bool)):
        if top is not None and not asked:
            raise InvalidRequest("top_logprobs requires logprobs to be set to true")
        return sampling
    if not isinstance(asked, bool):
        raise wrong("logprobs", "true or false", asked)
    if not asked:
        if top:
            raise InvalidRequest("top_logprobs requires logprobs to be set to true")
        return sampling
    count = TOP_LOGPROBS if top is None else max(top, 1)
    return msgspec.structs.replace(
        sampling, n_probs=count, parameters={**sampling.parameters, "n_probs": count}
    )
