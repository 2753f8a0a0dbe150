"""From a request to the engine's job, and from the job's result to what the client is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lollms_kernel.errors import InvalidRequest, UnsupportedInput
from lollms_kernel.types import Finished, GenerateRequest, Message, Notice, Timings, Usage

from .job import Job, Result
from .parameters import model_defaults, read_sampling, unknown_parameters

if TYPE_CHECKING:  # imports llama.cpp
    from .loading import LoadedModel


def check_input(request: GenerateRequest) -> None:
    """Raise UnsupportedInput or InvalidRequest for what no model could answer here."""
    if request.generation_type != "ttt":
        raise UnsupportedInput(
            f"llama.cpp generates text from text, not '{request.generation_type}'.",
            hint="Use a binding for this generation type; `lollms bindings` lists what is installed.",
        )
    if request.media:
        raise UnsupportedInput(
            f"llama.cpp models take text only here, not {request.media[0].type}.", hint="Send text only."
        )
    if request.raw_prompt is None and not request.messages and not request.system:
        raise InvalidRequest("There is nothing to answer.", hint="Send a message or a raw prompt.")
    read_sampling(request.parameters, {})  # what is wrong with them is said before a model is loaded for it


def prepare(loaded: LoadedModel, request: GenerateRequest) -> tuple[Job, list[Notice]]:
    """The job for a request, and what is done differently from what it asks. Blocks: the text is tokenized here."""
    sampling = read_sampling(request.parameters, model_defaults(loaded.header))
    notices = list(loaded.notices)
    if ignored := unknown_parameters(request.parameters):
        names = ", ".join(ignored)
        notices.append(
            Notice("parameters_ignored", f"Parameters without effect here: {names}.", {"names": ignored})
        )
    if request.functions:
        notices.append(Notice("functions_ignored", "This binding cannot offer functions to the model yet."))
    if request.raw_prompt is not None:
        prompt = loaded.prompts.raw(request.raw_prompt)
        if request.system:
            notices.append(
                Notice("system_ignored", "A raw prompt is continued as it is, without the system text.")
            )
    else:
        prompt = loaded.prompts.chat(_conversation(request))
        if not loaded.has_template:
            message = f"'{loaded.file.name}' has no chat template; ChatML was used, which may not suit it."
            notices.append(Notice("chat_template_missing", message))
        if prompt.system_folded:
            message = "The model knows no system role: the system text was put before the first user turn."
            notices.append(Notice("system_folded", message))
    return Job(tokens=prompt.tokens, sampling=sampling, tenant=request.tenant), notices


def _conversation(request: GenerateRequest) -> list[Message]:
    """The turns, with every leading system text in one message: most templates know only one."""
    turns = list(request.messages)
    system = [request.system] if request.system else []
    while turns and turns[0].role == "system":
        system.append(turns.pop(0).content)
    return [Message("system", "\n\n".join(system)), *turns] if system else turns


def context_full(loaded: LoadedModel) -> Notice:
    """Says that the answer ended for want of room."""
    n_ctx = loaded.engine.n_ctx
    message = f"The answer ends where the context of '{loaded.file.name}' is full: {n_ctx} tokens."
    return Notice("context_full", message, {"n_ctx": n_ctx})


def finished(loaded: LoadedModel, result: Result, load: float | None, first_chunk: float | None) -> Finished:
    """The last chunk; `load` and `first_chunk` are the seconds that these took."""
    answer = result.answer
    metadata: dict[str, Any] = {"model": loaded.file.name, "seed": result.seed}
    if answer.stop_text is not None:
        metadata["stop"] = answer.stop_text
    if result.generate_seconds > 0:
        metadata["tokens_per_second"] = round(answer.tokens / result.generate_seconds, 1)
    if result.prompt_seconds > 0:
        metadata["prompt_per_second"] = round(
            (result.prompt_tokens - result.cached_tokens) / result.prompt_seconds, 1
        )
    return Finished(
        reason="stop" if answer.reason == "stop" else "length",
        usage=Usage(result.prompt_tokens, answer.tokens, result.cached_tokens),
        timings=Timings(
            load=load, prompt=result.prompt_seconds, first_chunk=first_chunk, generate=result.generate_seconds
        ),
        metadata=metadata,
    )
