"""What plugins implement, and the kernel that they receive.

Async lives in the methods of these objects; the hooks that register them (`hookspecs`) are plain functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import msgspec

from .errors import LollmsError
from .placeholders import expand
from .types import (
    Chunk,
    Embedding,
    EmbeddingOptions,
    Event,
    GenerateRequest,
    GpuNeed,
    Message,
    ModelInfo,
    Parameters,
    Ranking,
    Speakers,
    TemplateOptions,
)

if TYPE_CHECKING:
    from .config.schema import MainConfig
    from .downloads import Downloads

Isolation = Literal["process", "inline"]

Secret = Annotated[str, msgspec.Meta(extra={"secret": True})]
"""Marks a settings field that no listing, log or error may show."""


# --- bindings ---------------------------------------------------------------------------------------------


class BindingCard(msgspec.Struct, frozen=True, kw_only=True):
    """What a listing says of a binding type (the published `binding_card` fields)."""

    display_name: str
    version: str
    author: str
    description: str
    requirements: tuple[str, ...] = ()
    supports_streaming: bool = True
    documentation_url: str | None = None
    supported_input_modalities: tuple[str, ...] = ("text",)
    supported_output_modalities: tuple[str, ...] = ("text",)
    """The first one is what it is made for: its built-in instance then serves such requests by default."""


class InstanceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every instance file may hold; a binding adds its own fields in a subclass.

    Mark secrets with `Secret`. A field's description and range go into `Annotated[..., msgspec.Meta(...)]`.
    """

    type: str
    binding_instance_name: str
    default_model: str | None = None


class BindingContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a binding may know of its surroundings: plain values, since it may run in another process."""

    models_folder: Path
    root: Path
    """Relative paths of settings are relative to this folder (the parent of the configuration folder)."""
    default_context_size: int = 4096
    default_max_output_tokens: int = 1024


class Binding(ABC):
    """One configured connection to an engine that generates.

    The object exists twice when `isolation` is "process": in the server, where only `gpu_need`, `parallel`,
    `unavailable_reason` and the class attributes are used, and opened in a worker, where all the rest runs.
    So neither the module nor `__init__` may import the engine; import it in `open` or `load`.
    """

    type_name: ClassVar[str]
    card: ClassVar[BindingCard]
    Settings: ClassVar[type[InstanceSettings]] = InstanceSettings
    endless: ClassVar[bool] = False
    """Whether it understands the parameter `max_tokens` -1, "until the context is full"; for others it is left out."""

    def __init__(self, settings: Any, context: BindingContext) -> None:
        self.settings = settings
        self.context = context

    @property
    def name(self) -> str:
        """The instance's name."""
        return str(self.settings.binding_instance_name)

    @property
    def isolation(self) -> Isolation:
        """Whether this instance runs in a worker process of its own (engines) or in the server (thin clients)."""
        return "inline"

    @property
    def parallel(self) -> int | None:
        """How many requests it works on at once; more wait in its queue. None: no limit of its own."""
        return None

    @property
    def default_parameters(self) -> Parameters:
        """Generation parameters for requests that do not set them; they win over the server's own defaults."""
        return {}

    @property
    def pulse(self) -> int | None:
        """A number that changes whenever the engine gets on with something; asked in the worker every few seconds.

        By it a worker that is slow (a long step, a long load, a request that waits for others) is told from one that
        hangs: the latter's pulse stands still for `workers.stall_timeout` while somebody waits. So the engine moves it
        where it works, never a timer or the event loop. None: the engine cannot tell, and a request counts as hung that
        yields nothing for that time, or does not end within a few seconds of being cancelled."""
        return None

    @classmethod
    def builtin_instances(cls) -> Mapping[str, Mapping[str, Any]]:
        """Instances (name to settings) that exist when the configuration has no `bindings_map` at all."""
        return {}

    @classmethod
    def unavailable_reason(cls) -> LollmsError | None:
        """Why this type cannot work on this machine, with the cure as hint; looks, never imports the engine."""
        return None

    def gpu_need(self, request: GenerateRequest) -> GpuNeed:
        """What this request wants of the GPU."""
        return GpuNeed()

    async def open(self) -> None:  # noqa: B027 - a hook with a default, not a forgotten abstract method
        """Get ready. Raise a LollmsError with the cure if that cannot work; must not wait for slow services."""

    async def close(self) -> None:  # noqa: B027
        """Give everything back."""

    @abstractmethod
    async def list_models(self) -> list[ModelInfo]:
        """The models that `generate` accepts as `request.model`."""

    async def get_model_info(self, model: str | None = None) -> ModelInfo:
        """What is known of a model, by default the instance's own. Raises ModelNotFound."""
        from .errors import ModelNotFound

        models = await self.list_models()
        wanted = model or self.settings.default_model
        for info in models:
            if wanted is None or info.name == wanted:
                return info
        known = ", ".join(info.name for info in models[:5]) or "none"
        raise ModelNotFound(f"Binding '{self.name}' has no model '{wanted}'.", hint=f"It has: {known}.")

    async def load(self, model: str) -> None:  # noqa: B027
        """Make `model` ready for `generate`. Raises ModelNotFound or ModelLoadFailed."""

    async def unload(self) -> None:  # noqa: B027
        """Give the memory of every loaded model back."""

    def supports_role(self, media_type: str, role: str) -> bool:
        """Whether an input of this type may have this role."""
        return True

    @abstractmethod
    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Stream the answer, ending with Finished; raise a LollmsError if it cannot.

        Being closed or cancelled means "stop now": the engine must stop within one step.
        """


@runtime_checkable
class Tokenizes(Protocol):
    """A binding that gives token ids."""

    async def tokenize(self, text: str, model: str | None, add_bos: bool, add_eos: bool) -> list[int]:
        """The token ids of `text`."""

    async def detokenize(self, tokens: list[int], model: str | None) -> str:
        """The text of token ids."""


@runtime_checkable
class TellsPieces(Protocol):
    """A binding that tells the bytes of each token, which need not be text by themselves."""

    async def token_pieces(self, tokens: list[int], model: str | None) -> list[bytes]:
        """The bytes of each token. Raises InvalidRequest for ids that the model does not have."""


@runtime_checkable
class CountsTokens(Protocol):
    """A binding that says how many tokens a text has, though perhaps not which: some services tell no more."""

    async def count_tokens(self, text: str, model: str | None) -> int:
        """The number of tokens of `text`."""


@runtime_checkable
class Embeds(Protocol):
    """A binding that gives embedding vectors."""

    async def embed(self, texts: list[str], model: str | None) -> list[list[float]]:
        """One vector for each text."""


@runtime_checkable
class EmbedsInputs(Protocol):
    """A binding that embeds texts, token ids and mixtures of both, pooled or token by token."""

    async def embed_inputs(
        self, inputs: list[list[int | str]], model: str | None, options: EmbeddingOptions
    ) -> list[Embedding]:
        """The embedding of each input, which is a sequence of texts and token ids."""


@runtime_checkable
class Reranks(Protocol):
    """A binding that scores documents against a query."""

    async def rerank(self, query: str, documents: list[str], model: str | None, tenant: str) -> Ranking:
        """One score for each document; larger is better."""


@runtime_checkable
class AppliesTemplate(Protocol):
    """A binding that shows the prompt which its model's chat template makes of a conversation."""

    async def apply_template(
        self, messages: list[Message], model: str | None, options: TemplateOptions
    ) -> str:
        """The prompt. Raises InvalidRequest where the template refuses the turns."""


@runtime_checkable
class HasSlots(Protocol):
    """A binding that works on several requests at once in slots whose state can be looked at, saved and restored."""

    async def slots(self, model: str | None) -> list[dict[str, Any]]:
        """Each slot as llama-server's `/slots` shows it, in the order of their ids."""

    async def slot_action(
        self, slot: int, action: str, filename: str | None, model: str | None, tenant: str
    ) -> dict[str, Any]:
        """`save`, `restore` or `erase` one slot, as `/slots/{id}?action=…` answers. Waits while the slot is busy."""


@runtime_checkable
class HasAdapters(Protocol):
    """A binding with LoRA adapters whose weight can be changed while it runs."""

    async def adapters(self, model: str | None) -> list[dict[str, Any]]:
        """`{"id", "path", "scale", …}` for each; `path` is a file name, never where it lies."""

    async def set_adapters(self, scales: list[tuple[int, float]], model: str | None) -> None:
        """The scale of each adapter by id for requests that say nothing; those left out get 0."""


@runtime_checkable
class HasEngine(Protocol):
    """A binding that tells what its engine is and does."""

    async def properties(self, model: str | None) -> dict[str, Any]:
        """What llama-server's `/props` and `/v1/models` (under `meta`) say of the loaded model."""

    async def engine_metrics(self, model: str | None) -> dict[str, float]:
        """Counters and gauges by llama-server's names without prefix; never resets anything."""


# --- personalities ----------------------------------------------------------------------------------------


DEFAULT_WELCOME = "Welcome! How can I help you today?"
"""What a personality greets with that does not say how."""


class PersonalityCard(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a personality. `id` is what requests name and listings use as key."""

    id: str
    name: str
    author: str = "Unknown"
    version: str = "1.0"
    description: str = ""
    category: str = "generic"
    language: str = "english"
    languages: tuple[str, ...] = ()
    """Languages that there is a translation for, beside `language`."""
    tags: tuple[str, ...] = ()
    icon: str = "default.png"
    is_scripted: bool = False
    script_enabled: bool = False
    """Whether its script may run; without it the personality works through its conditioning."""
    legacy_script: bool = False
    """Whether its script is a `processor.py` of the desktop program."""
    problems: tuple[str, ...] = ()
    """What is wrong with its files or not done as they say, in words for people."""
    folder: str | None = None
    """The folder's own name (never a path): `personalities_config` uses it as key."""
    conditioning: str = ""
    welcome_message: str = ""
    greets_in_history: bool = False
    """Whether clients that keep a history should begin it with the welcome message."""
    disclaimer: str = ""
    user_name: str = "user"
    user_message_prefix: str = "User"
    ai_message_prefix: str = "Assistant"
    link_text: str = "\n"
    anti_prompts: tuple[str, ...] = ()
    prompts_list: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    """Functions of this server that the model may call."""
    binding: str | None = None
    model: str | None = None
    """Who answers text requests that name neither binding nor model."""
    parameters: Parameters = msgspec.field(default_factory=dict)
    """Generation defaults; a request's own parameters win over them."""

    @property
    def greeting(self) -> str:
        """The welcome message with its placeholders filled in."""
        return expand(self.welcome_message, self.user_name)[0]


class Personality:
    """Instructions (and perhaps a program) between a request and the binding.

    The kernel may put another card into `card`: one with what `personalities_config` changes.
    """

    def __init__(self, card: PersonalityCard) -> None:
        self.card = card

    @property
    def logo(self) -> Path | None:
        """The picture to show for it; None where there is none."""
        return None

    def condition(self, request: GenerateRequest) -> GenerateRequest:
        """The request with this personality's conditioning, parameters, functions and stop texts; what the request
        itself says wins, and its own stop texts are added."""
        card = self.card
        context = (request.system or "").strip()
        own, public = expand(card.conditioning.strip(), card.user_name)
        if request.system_message is not None:
            own, public = request.system_message.strip(), 0
        parameters = {**card.parameters, **request.parameters}
        stop = [*card.anti_prompts, *request.parameters.get("stop", ())]
        if stop:
            parameters["stop"] = list(dict.fromkeys(stop))
        told = {item for item in request.functions if isinstance(item, str)}
        binding, model = request.binding, request.model
        if request.generation_type == "ttt" and binding in (None, card.binding):
            binding, model = card.binding, model or card.model
        return msgspec.structs.replace(
            request,
            system="\n\n".join(part for part in (context, own) if part) or None,
            system_message=None,
            parameters=parameters,
            functions=(*request.functions, *(name for name in card.functions if name not in told)),
            public_prefix=0 if context else public,
            speakers=_speakers(card) if card.id else None,
            ends_at=card.anti_prompts,
            binding=binding,
            model=model,
        )

    async def run(self, request: GenerateRequest, context: PersonalityContext) -> AsyncGenerator[Chunk, None]:
        """Stream the answer. A scripted personality overrides this and may call `context.generate` often."""
        async with aclosing(context.generate(self.condition(request))) as chunks:
            async for chunk in chunks:
                yield chunk


def _speakers(card: PersonalityCard) -> Speakers:
    return Speakers(
        user=_marker(card.user_message_prefix),
        assistant=_marker(card.ai_message_prefix),
        between=card.link_text,
    )


def _marker(prefix: str) -> str:
    """A prefix that is more than a bare word, such as `!@>user:` or `### ai:` and a new line, as it is; a bare word as
    the desktop program writes it since 2024."""
    return f"!@>{prefix}: " if prefix and prefix[-1].isalnum() and prefix[0].isalnum() else prefix


class PersonalitySource(ABC):
    """Personalities that come and go while the server runs. Register it in place of single personalities."""

    @abstractmethod
    def personalities(self) -> Mapping[str, Personality]:
        """Id to personality, as they are now: the same object as before while nothing has changed.

        It is asked for at every request, on the event loop, so it must not look at a disk; look in a task that `open`
        starts. It is also asked without `open`, by commands that only list.
        """

    def unusable(self) -> Mapping[str, str]:
        """Id to what is wrong, of those that cannot be used."""
        return {}

    def check(self, folder: Path) -> Sequence[str] | None:
        """Everything that is wrong with a personality's folder, in words; None where it is none of this kind."""
        return None

    async def open(self, kernel: Kernel) -> None:  # noqa: B027
        """Start what keeps them up to date; called when the bindings are open."""

    async def close(self) -> None:  # noqa: B027
        """End it; called before the bindings are closed."""


class PersonalityContext(Protocol):
    """What a running personality may use."""

    @property
    def kernel(self) -> Kernel:
        """The kernel that runs it."""

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Choose the binding, wait for its turn and stream its answer."""


# --- functions --------------------------------------------------------------------------------------------


class Function(ABC):
    """A tool that personalities and models may call. `schema` is a JSON schema of its arguments."""

    name: str
    description: str = ""
    schema: Mapping[str, Any]

    @abstractmethod
    async def call(self, arguments: Mapping[str, Any]) -> Any:
        """Run it. Raises InvalidRequest for wrong arguments."""

    async def close(self) -> None:  # noqa: B027
        """Give back what calls have started; called when the kernel closes."""


# --- GPU --------------------------------------------------------------------------------------------------


class GpuStrategy(ABC):
    """Decides how many pieces of work share the GPU."""

    name: ClassVar[str]

    def __init__(self, limit: int, queue_timeout: float) -> None:
        self.limit = limit
        self.queue_timeout = queue_timeout

    @abstractmethod
    def lease(self, binding: str, need: GpuNeed) -> AbstractAsyncContextManager[None]:
        """Hold the GPU while inside. Raises QueueTimeout; what the body raises passes through unchanged."""

    @abstractmethod
    def status(self) -> Mapping[str, Any]:
        """Figures for listings: at least `active` and `waiting`."""


# --- transports -------------------------------------------------------------------------------------------


class ErrorAnswer(msgspec.Struct, frozen=True):
    """An error as a protocol tells it."""

    status: int
    body: bytes
    content_type: str


class Cors(msgspec.Struct, frozen=True, kw_only=True):
    """What a port answers to web pages, where its protocol has rules of its own.

    `origins` are exact ones, `localhost` for every page of this machine whatever its port, or `*` for all. Every
    `OPTIONS` is answered with 200 and the headers, whoever asks: what a page of another origin does then is refused
    as everywhere unless it brings a valid key.
    """

    origins: tuple[str, ...]
    methods: str = "GET, POST, DELETE, OPTIONS"
    headers: str = "*"


class PortRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate does on a port of its own where the protocol there differs from the main port."""

    error_answer: Callable[[LollmsError, str], ErrorAnswer]
    """An error of the gate, and the path that was asked for, in the protocol's shape."""
    open_paths: tuple[str, ...] = ()
    """Instead of `Transport.open_paths`."""
    cors: Cors | None = None


class Listener(msgspec.Struct, frozen=True):
    """A port of its own that a transport serves on the same event loop. `app` is an ASGI application."""

    port: int
    app: Any
    host: str | None = None
    required: bool = False
    """Whether the server must not start while the port is taken: where the configuration names it. A default port
    that is taken is logged with the cure, and the transport still answers on the main port."""
    rules: PortRules | None = None
    """None: those of the main port."""


class Health(msgspec.Struct, frozen=True):
    """What a protocol adds to `GET /health` of the main port; the highest status of all counts."""

    facts: dict[str, Any] = msgspec.field(default_factory=dict)
    status: int = 200


class TransportSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `transports.<name>`; a transport adds its own fields in a subclass."""

    enabled: bool = True


class Transport(ABC):
    """One wire protocol. It decodes requests, calls `kernel.stream` and encodes chunks; nothing else."""

    name: ClassVar[str]
    Settings: ClassVar[type[TransportSettings]] = TransportSettings

    def __init__(self, kernel: Kernel, settings: Any) -> None:
        self.kernel = kernel
        self.settings = settings

    @property
    def prefixes(self) -> Sequence[str]:
        """Path prefixes that this transport answers on the main port: errors there get its shape."""
        return ()

    @property
    def open_paths(self) -> Sequence[str]:
        """Paths that need no API key: exact ones, and whole folders as `/folder/*`."""
        return ()

    @property
    def late_key_paths(self) -> Sequence[str]:
        """Paths, as in `open_paths`, that a connection may also reach without a key because its key comes in the first
        message. Host and Origin are checked all the same, and so is a key that comes in a header. Requests there do not
        count as requests of the key: what their messages generate does.

        `scope["state"]["caller"]` is the `Caller`, or None where the key is still to come: the transport then does
        nothing for the connection before `kernel.caller(key)`, and ends it if no key comes in time."""
        return ()

    def route_handlers(self) -> Sequence[Any]:
        """Litestar route handlers for the main port."""
        return ()

    def listeners(self) -> Sequence[Listener]:
        """Ports of its own."""
        return ()

    def error_body(self, error: LollmsError) -> tuple[bytes, str]:
        """An error in this protocol's shape: body and content type. Default: `{"detail": …}`."""
        return msgspec.json.encode({"detail": error.detail}), "application/json"

    def error_answer(self, error: LollmsError, path: str) -> ErrorAnswer:
        """What the gate answers below `prefixes` on the main port. Default: `error_body` with the error's status."""
        return ErrorAnswer(error.status, *self.error_body(error))

    async def health(self, query: Mapping[str, str]) -> Health:
        """What this protocol adds to `GET /health` of the main port, which needs no key. Must not wait long."""
        return Health()

    async def open(self) -> None:  # noqa: B027
        """Start what runs beside requests."""

    async def drain(self, grace: float) -> None:  # noqa: B027
        """The server stops: end long-lived connections in this protocol's own way, within `grace` seconds.

        Called while connections are still open and answers under way may still end; `close` comes after both."""

    async def close(self) -> None:  # noqa: B027
        """End it; called before bindings are closed."""


# --- the kernel, as plugins see it --------------------------------------------------------------------------


class InstanceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A configured binding instance as listings show it. `settings` holds no secret."""

    name: str
    type: str
    state: Literal["ready", "starting", "failed"]
    settings: dict[str, Any]
    error: str | None = None
    hint: str | None = None


class Caller(Protocol):
    """Who is on a connection: the holder of an API key, or anybody where no key is asked for."""

    @property
    def tenant(self) -> str:
        """For `GenerateRequest.tenant`."""

    @property
    def limited(self) -> bool:
        """Whether the key may use only some bindings or personalities, and so may not administer the server."""

    def acting(self) -> AbstractContextManager[None]:
        """Work on this caller's behalf inside: limits and permissions of the key hold. Enter it for each message.

        Raises Unauthorized where the key was revoked meanwhile, Forbidden where one has become necessary."""


class Kernel(Protocol):
    """What transports, personalities and `lifespan` hooks receive."""

    @property
    def config(self) -> MainConfig:
        """The main configuration, its paths made absolute."""

    @property
    def root(self) -> Path:
        """The folder that relative paths of settings are relative to."""

    def stream(self, request: GenerateRequest) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """The only way in. Entering waits until the first chunk is there, so that whatever is wrong before it
        is raised; after it errors arrive as Failed. Leaving stops the work and frees everything it held."""

    def caller(self, key: str) -> Caller:
        """The holder of an API key that came in a message, "" for none. Raises Forbidden without a key where one is
        needed, Unauthorized for a wrong one."""

    def cancel(self, request_id: str, tenant: str | None = None) -> bool:
        """Stop a running request; False if none of this id (and tenant) runs."""

    @property
    def binding_types(self) -> Mapping[str, type[Binding]]:
        """Type name to class, of every installed plugin."""

    @property
    def personalities(self) -> Mapping[str, Personality]:
        """Id to personality, the enabled ones."""

    @property
    def functions(self) -> Mapping[str, Function]:
        """Name to function."""

    def instances(self) -> list[InstanceStatus]:
        """Every configured binding instance, whatever its state."""

    def default_binding(self, generation_type: str) -> str | None:
        """The instance that serves this kind of generation when a request names none."""

    def binding(self, name: str) -> Binding:
        """A ready instance. Raises BindingNotFound or BindingUnavailable."""

    async def add_instance(self, name: str, settings: Mapping[str, Any]) -> InstanceStatus:
        """A binding instance that no file holds, open and ready; gone with `remove_instance` or when the server stops.

        `settings` is what its file would hold, `type` included. Raises ConfigError where there is one of this name or
        the settings are wrong, and what keeps it from opening."""

    async def remove_instance(self, name: str, grace: float = 0.0) -> None:
        """Take such an instance away: its answers end within `grace` seconds, then it is closed, and its memory is free
        when this returns. Raises BindingNotFound for one that is configured in a file, too."""

    @property
    def downloads(self) -> Downloads:
        """The models that come from a hub: what is downloaded, and how to get more."""

    def listen(self, listener: Listener) -> AbstractAsyncContextManager[str]:
        """Serve one more port while inside, behind the same gate; gives its URL. `listener.rules` must be there.

        Raises ConfigError where the port is taken or others could reach it without a key, NotSupported where nobody
        serves this kernel."""

    def stop(self, *, now: bool = False) -> None:
        """Let the server stop as a signal would, at once with `now`. Does nothing where nobody serves this kernel."""

    def find_personality(self, name: str) -> Personality:
        """By id, name or folder. Raises PersonalityNotFound."""

    def observe(self, event: Event) -> None:
        """Tell every `observe` hook."""


Register = Callable[[Any], None]
"""What a register hook receives: call it once for each object."""
