"""From a request to the engine's job, and from the job's result to what the client is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lollms_kernel.errors import InvalidRequest, UnsupportedInput
from lollms_kernel.types import Finished, GenerateRequest, Message, Notice, Timings, Usage

from .generation_settings import generation_settings, native_timings
from .infill import infill_tokens
from .job import Job, MediaRun, Result
from .json_schema import schema_grammar
from .parameters import Sampling, model_defaults, read_sampling, unknown_parameters
from .prompt import Chat, Prompt
from .tool_formats import ToolChoice, choose, described, format_of
from .turns import RenderOptions, as_turns, conversation, with_instructions

if TYPE_CHECKING:  # imports llama.cpp
    from .loading import LoadedModel
    from .sampling import Sampler

_STOP_TYPES = {"eos": "eos", "word": "word", "limit": "limit", "context": "limit", "grammar": "none"}


class Prepared(msgspec.Struct, kw_only=True):
    """A request that is ready for the engine."""

    job: Job
    sampler: Any
    seed: int
    notices: list[Notice]
    names: tuple[str, ...] = ()
    """Functions that the answer may call."""
    begins_with: str = ""
    """What a reader has to be shown before the answer: the mark of a thought that the prompt has opened."""
    prompt: str = ""
    """The prompt as text, control tokens visible; only where it is wanted."""


def check_input(request: GenerateRequest) -> None:
    """Raise UnsupportedInput or InvalidRequest for what no model could answer here."""
    if request.generation_type != "ttt":
        raise UnsupportedInput(
            f"llama.cpp generates text from text, not '{request.generation_type}'.",
            hint="Use a binding for this generation type; `lollms bindings` lists what is installed.",
        )
    if request.prompt_parts is not None and not request.prompt_parts:
        raise InvalidRequest('"prompt" must not be empty', hint="Send at least one token or text.")
    given = (request.raw_prompt, request.prompt_parts, request.infill)
    if all(part is None for part in given) and not request.messages and not request.system:
        raise InvalidRequest("There is nothing to answer.", hint="Send a message or a raw prompt.")
    read_sampling(request.parameters, {})  # what is wrong with them is said before a model is loaded for it


def prepare(loaded: LoadedModel, request: GenerateRequest) -> Prepared:
    """What the engine needs for a request, and what is done differently from what it asks. Blocks: the text is
    tokenized and grammars are parsed here."""
    sampling = read_sampling(request.parameters, model_defaults(loaded.header))
    notices = list(loaded.notices)
    if ignored := unknown_parameters(request.parameters):
        names = ", ".join(ignored)
        notices.append(
            Notice("parameters_ignored", f"Parameters without effect here: {names}.", {"names": ignored})
        )
    if sampling.n_cache_reuse:
        notices.append(
            Notice("cache_reuse_ignored", "Prompts share what they begin with; n_cache_reuse has no effect.")
        )
    tools, others = described(request.functions)
    if others:
        notices.append(
            Notice("functions_ignored", "Functions that are not described as OpenAI does were left out.")
        )
    choice = choose(tools, request.parameters.get("tool_choice"))
    if request.messages or request.system:
        if any(part is not None for part in (request.raw_prompt, request.prompt_parts, request.infill)):
            choice = ToolChoice([])
            if request.system:
                notices.append(
                    Notice("system_ignored", "A raw prompt is continued as it is, without the system text.")
                )
    else:
        choice = ToolChoice([])
    grammar, sampling = _grammar(loaded, request, sampling, choice)
    prompt, media, begins_with = _prompt(loaded, request, sampling, choice, notices)
    job = Job(
        tokens=prompt.tokens,
        sampling=sampling,
        tenant=request.tenant,
        public=prompt.public,
        grammar=grammar,
        want_tokens=request.want_tokens,
        adapters=loaded.engine.adapters.in_force(sampling.lora),
        media=media,
    )
    sampler, seed = loaded.engine.prepare(job)
    return Prepared(
        job=job,
        sampler=sampler,
        seed=seed,
        notices=notices,
        names=tuple(tool["function"]["name"] for tool in choice.tools),
        begins_with="" if request.raw_thoughts else begins_with,
        prompt=_shown(loaded, prompt) if request.want_tokens else "",
    )


def _grammar(
    loaded: LoadedModel, request: GenerateRequest, sampling: Sampling, choice: ToolChoice
) -> tuple[str | None, Sampling]:
    """The grammar that binds the answer, and the sampling parameters that go with it."""
    if choice.tools:
        format = format_of(loaded.prompts.template.source)
        marks = tuple(mark for mark in (format.begin, format.end, "<|python_tag|>") if mark)
        sampling = msgspec.structs.replace(sampling, preserved_tokens=(*sampling.preserved_tokens, *marks))
        if not sampling.grammar and not sampling.json_schema:
            several = request.parameters.get("parallel_tool_calls") is not False
            lazy = not choice.must
            sampling = msgspec.structs.replace(
                sampling, grammar_lazy=lazy, grammar_triggers=format.triggers if lazy else ()
            )
            return format.grammar(choice.tools, several), sampling
        if choice.must:
            raise InvalidRequest(
                "A function has to be called and the answer is bound by a grammar or schema.",
                hint="Give one of them.",
            )
    if sampling.json_schema is not None:
        return schema_grammar(sampling.json_schema), sampling
    return sampling.grammar, sampling


def _prompt(
    loaded: LoadedModel,
    request: GenerateRequest,
    sampling: Sampling,
    choice: ToolChoice,
    notices: list[Notice],
) -> tuple[Prompt, tuple[MediaRun, ...], str]:
    if request.infill is not None:
        engine = loaded.engine
        tokens = infill_tokens(
            engine.vocabulary,
            request.infill,
            n_batch=engine.spec.batch_size,
            n_ctx=engine.n_ctx,
            n_predict=sampling.max_tokens,
        )
        loaded.prompts.check_length(len(tokens))
        return Prompt(tokens), (), ""
    if request.prompt_parts is not None:
        return loaded.prompts.mixed(request.prompt_parts), (), ""
    if request.raw_prompt is not None:
        if request.raw_media:
            prompt, media = loaded.eyes().raw(request.raw_prompt, request.raw_media, loaded.prompts)
            return prompt, media, ""
        return loaded.prompts.raw(request.raw_prompt), (), ""
    chat = chat_of(loaded, conversation(request), choice.tools, request.parameters)
    if request.system and request.public_prefix > 0:
        chat = msgspec.structs.replace(chat, public=request.system[: request.public_prefix])
    if request.media:
        prompt, media = loaded.eyes().chat(chat, request.media, loaded.prompts)
        opened = ""
    else:
        prompt, media = loaded.prompts.chat(chat), ()
        opened = _opened_thought(prompt.text)
    if not loaded.has_template:
        message = f"'{loaded.file.name}' has no chat template; ChatML was used, which may not suit it."
        notices.append(Notice("chat_template_missing", message))
    if prompt.system_folded:
        message = "The model knows no system role: the system text was put before the first user turn."
        notices.append(Notice("system_folded", message))
    return prompt, media, opened


def chat_of(
    loaded: LoadedModel, messages: list[Message], tools: list[dict[str, Any]], parameters: dict[str, Any]
) -> Chat:
    """A conversation for the template, with what the parameters say about it. Raises InvalidRequest."""
    template = loaded.prompts.template
    turns = as_turns(messages, tools_known=template.knows_tools)
    if tools and not template.knows_tools:
        turns = with_instructions(turns, tools, format_of(template.source))
    kwargs = parameters.get("chat_template_kwargs") or {}
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        raise InvalidRequest(
            f"parameters.chat_template_kwargs is {str(kwargs)[:80]!r}.", hint="It must be an object."
        )
    answer = ""
    goes_on = turns and turns[-1]["role"] == "assistant" and "tool_calls" not in turns[-1]
    if goes_on and parameters.get("continue_final_message") is not False and len(turns) > 1:
        answer = turns.pop()["content"]
    generation_prompt = parameters.get("add_generation_prompt") is not False
    options = RenderOptions(
        tools=tuple(tools) if template.knows_tools else (),
        add_generation_prompt=generation_prompt or bool(answer),
        kwargs={name: value for name, value in kwargs.items() if name not in ("messages", "tools")},
    )
    return Chat(turns=turns, options=options, answer=answer)


def _opened_thought(text: str) -> str:
    """The mark of a thought that the prompt's end has opened, if it has."""
    tail = text[-200:]
    opened, closed = tail.rfind("<think>"), tail.rfind("</think>")
    return tail[opened:] if opened > closed and not tail[opened + 7 :].strip() else ""


def _shown(loaded: LoadedModel, prompt: Prompt) -> str:
    known = [token for token in prompt.tokens if token >= 0]
    return loaded.engine.vocabulary.detokenize(known)


def context_full(loaded: LoadedModel) -> Notice:
    """Says that the answer ended for want of room."""
    n_ctx = loaded.engine.n_ctx
    message = f"The answer ends where the context of '{loaded.file.name}' is full: {n_ctx} tokens."
    return Notice("context_full", message, {"n_ctx": n_ctx})


def finished(
    loaded: LoadedModel,
    prepared: Prepared,
    result: Result,
    *,
    load: float | None,
    first_chunk: float | None,
    called: bool,
    want_tokens: bool,
) -> Finished:
    """The last chunk; `load` and `first_chunk` are the seconds that these took."""
    answer = result.answer
    metadata: dict[str, Any] = {"model": loaded.file.name, "seed": result.seed}
    if answer.stop_text is not None:
        metadata["stop"] = answer.stop_text
    if answer.tokens > 1 and result.generate_seconds > 0:
        metadata["tokens_per_second"] = round((answer.tokens - 1) / result.generate_seconds, 1)
    if result.prompt_seconds > 0:
        metadata["prompt_per_second"] = round(
            (result.prompt_tokens - result.cached_tokens) / result.prompt_seconds, 1
        )
    if want_tokens:
        metadata["engine"] = _engine_facts(loaded, prepared, result)
    reason = "stop" if answer.reason in ("eos", "word", "grammar") else "length"
    return Finished(
        reason="tool_calls" if called and reason == "stop" else reason,
        usage=Usage(result.prompt_tokens, answer.tokens, result.cached_tokens),
        timings=Timings(
            queue=result.queue_seconds,
            load=load,
            prompt=result.prompt_seconds,
            first_chunk=first_chunk,
            generate=result.generate_seconds,
        ),
        metadata=metadata,
    )


def _engine_facts(loaded: LoadedModel, prepared: Prepared, result: Result) -> dict[str, Any]:
    sampler: Sampler = prepared.sampler
    answer = result.answer
    return {
        "id_slot": result.slot,
        "stop_type": _STOP_TYPES[answer.reason],
        "stopping_word": answer.stop_text or "",
        "truncated": answer.truncated,
        "has_new_line": answer.has_new_line,
        "tokens_cached": result.tokens_in_cache,
        "prompt": prepared.prompt,
        "generation_settings": generation_settings(
            prepared.job.sampling,
            seed=result.seed,
            n_ctx=loaded.engine.n_ctx,
            biases=sampler.biases,
            job=prepared.job,
        ),
        "timings": native_timings(result),
    }
