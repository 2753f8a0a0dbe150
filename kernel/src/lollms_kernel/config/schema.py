"""The main configuration: every section, key, default and range.

`docs/configuration.md` is generated from this file (`python -m lollms_kernel.config.reference`), so each field
carries its one-line description.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..contracts import Secret

MODEL_FOLDERS = (
    "ttt",
    "tti",
    "ttv",
    "ttm",
    "tts",
    "stt",
    "audio2audio",
    "i2i",
    "gguf",
    "diffusers_models",
)
"""The folders inside `paths.models_folder`, in the order of listings."""

InstanceName = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\Z",
        extra={"allowed": "a name of letters, digits, `_`, `-` and `.`"},
    ),
]
"""Names a file in the instance folder, so nothing in it may lead out of that folder."""

ApiKey = Annotated[
    Secret,
    Meta(pattern=r"\A\S(.*\S)?\Z", extra={"allowed": "text that is not empty and has no blanks around it"}),
]
"""Clients send it in a header, where blanks around a value are lost."""

KeyHash = Annotated[
    Secret,
    Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z", extra={"allowed": "`sha256:` and 64 digits from 0 to f"}),
]
FolderPath = Annotated[str, Meta(min_length=1, pattern=r"\A[^\x00]*\Z", extra={"allowed": "a path"})]
NonEmpty = Annotated[str, Meta(min_length=1)]

_DAY = 86400


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of the main configuration; a key that it does not name is an error."""


class ServerConfig(Section, frozen=True, kw_only=True):
    """Where the server listens and what it accepts."""

    host: Annotated[
        str,
        Meta(
            description="Address to listen on. Anything but loopback needs an API key or `allow_insecure_bind`."
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="Port to listen on.")] = 9601
    allowed_origins: Annotated[
        tuple[NonEmpty, ...],
        Meta(description="Web origins that browsers may call from (exact match)."),
    ] = (
        "http://localhost",
        "http://localhost:8000",
        "http://localhost:5173",
        "http://127.0.0.1",
        "http://127.0.0.1:8000",
        "http://127.0.0.1:5173",
    )
    allowed_hosts: Annotated[
        tuple[NonEmpty, ...],
        Meta(
            description="Names that the `Host` header may have besides `host` and loopback names; while empty, a"
            " server on another address takes any."
        ),
    ] = ()
    max_body_size: Annotated[
        int, Meta(ge=1024, description="Largest request body in bytes (default 64 MiB); larger ones get 413.")
    ] = 64 * 1024 * 1024
    shutdown_grace: Annotated[
        float,
        Meta(ge=0, le=_DAY, description="Seconds that running requests get to end when the server stops."),
    ] = 2.0
    allow_insecure_bind: Annotated[
        bool, Meta(description="Listen on an address that others can reach although no API key is set.")
    ] = False


class PathsConfig(Section, frozen=True, kw_only=True):
    """Folders; relative ones are relative to the parent of the configuration folder, `~` is the home folder."""

    config_base_dir: Annotated[
        FolderPath,
        Meta(description="Accepted for older files; the configuration folder that was really read counts."),
    ] = "lollms_configs"
    instance_bindings_folder: Annotated[
        FolderPath,
        Meta(
            description="Folder of the binding instance files, relative to the configuration folder itself."
        ),
    ] = "bindings"
    personalities_folder: Annotated[FolderPath, Meta(description="Your personalities.")] = (
        "personal/personalities"
    )
    bindings_folder: Annotated[
        FolderPath, Meta(description="Accepted for older files; binding types come as plugins.")
    ] = "personal/bindings"
    functions_folder: Annotated[FolderPath, Meta(description="Your functions (`*.py`).")] = (
        "personal/functions"
    )
    models_folder: Annotated[
        FolderPath, Meta(description="Model files, in one folder for each kind (`gguf`, `tti`, …).")
    ] = "models"
    example_personalities_folder: Annotated[
        FolderPath | None,
        Meta(description="Personalities that came with an installation; yours override them."),
    ] = "zoos/personalities"
    example_bindings_folder: Annotated[
        FolderPath | None, Meta(description="Accepted for older files, as `bindings_folder`.")
    ] = "zoos/bindings"
    example_functions_folder: Annotated[
        FolderPath | None, Meta(description="Functions that came with an installation; yours override them.")
    ] = "zoos/functions"


class ApiKeyEntry(Section, frozen=True, kw_only=True):
    """An API key with a name and, if wanted, limits. It has either `key` or `hash`."""

    name: Annotated[
        str,
        Meta(
            pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.@-]{0,99}\Z",
            extra={"allowed": "a name of letters, digits, `_`, `-`, `.` and `@`"},
            description="Whose key it is; unique, shown in listings and logs.",
        ),
    ]
    key: Annotated[
        ApiKey | None, Meta(description="The key itself; encrypted in files like every secret.")
    ] = None
    hash: Annotated[
        KeyHash | None,
        Meta(description="`sha256:` and the SHA-256 of the key, as `lollms keys add NAME` writes it."),
    ] = None
    requests_per_minute: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)] | None,
        Meta(
            description="Requests within any 60 seconds; further ones get 429 with `Retry-After`. Null: no limit."
        ),
    ] = None
    concurrent_streams: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Generations at once, waiting ones included; further ones get 429. Null: no limit."),
    ] = None
    bindings: Annotated[
        tuple[InstanceName, ...] | None,
        Meta(description="Binding instances that it may use, others get 403. Null: all."),
    ] = None
    personalities: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="Personalities (id, name or folder) that it may use, others get 403; an empty text stands for"
            " requests without one. Null: all."
        ),
    ] = None

    def __repr__(self) -> str:
        """Without key and hash: a repr ends up in logs and tracebacks."""
        return f"ApiKeyEntry(name={self.name!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich's tracebacks, which do not ask `__repr__`."""
        return [("name", self.name)]


class SecurityConfig(Section, frozen=True, kw_only=True):
    """Who may use the server. These values are never shown in listings, logs or errors."""

    allowed_api_keys: Annotated[
        tuple[ApiKey | ApiKeyEntry, ...],
        Meta(
            description="Keys that clients send as `X-API-Key`: the key, its hash (`sha256:…`), or an entry with a name"
            " and limits, see below. Empty: no key is asked for."
        ),
    ] = ()
    encryption_key: Annotated[
        Secret | None,
        Meta(
            description="Fernet key for the secrets in configuration files, or several with commas between: the first"
            " encrypts, all decrypt. `LOLLMS_ENCRYPTION_KEY` wins over it."
        ),
    ] = None

    def __repr__(self) -> str:
        """Without the values: a repr ends up in logs and tracebacks."""
        key = "set" if self.encryption_key else "not set"
        return f"SecurityConfig(allowed_api_keys={len(self.allowed_api_keys)}, encryption_key={key})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich's tracebacks, which do not ask `__repr__`."""
        return [("allowed_api_keys", len(self.allowed_api_keys))]


class DefaultsConfig(Section, frozen=True, kw_only=True):
    """What a request uses that names no binding or sizes itself."""

    ttt_binding: Annotated[
        InstanceName | None,
        Meta(description="Binding instance for text generation (a key of `bindings_map`)."),
    ] = None
    tti_binding: Annotated[InstanceName | None, Meta(description="Instance for images.")] = None
    tts_binding: Annotated[InstanceName | None, Meta(description="Instance for speech.")] = None
    stt_binding: Annotated[InstanceName | None, Meta(description="Instance for transcription.")] = None
    ttv_binding: Annotated[InstanceName | None, Meta(description="Instance for video.")] = None
    ttm_binding: Annotated[InstanceName | None, Meta(description="Instance for music.")] = None
    default_context_size: Annotated[
        int,
        Meta(ge=64, description="Context in tokens where neither model nor instance says how large it is."),
    ] = 4096
    default_max_output_tokens: Annotated[
        int, Meta(ge=1, description="Longest answer in tokens for a request that does not say.")
    ] = 1024


class ResourceManagerConfig(Section, frozen=True, kw_only=True):
    """How many requests run and wait at once."""

    gpu_strategy: Annotated[
        NonEmpty,
        Meta(
            description="How the GPU is shared: `none`, `simple_lock`, `semaphore`, or one that a plugin adds."
        ),
    ] = "semaphore"
    gpu_limit: Annotated[
        int, Meta(ge=1, description="Pieces of work that `semaphore` lets onto the GPU at once.")
    ] = 1
    queue_timeout: Annotated[
        int, Meta(ge=1, le=_DAY, description="Seconds that a request waits for its turn before it gets 408.")
    ] = 120
    max_running: Annotated[int, Meta(ge=1, description="Requests that are worked on at once.")] = 64
    max_waiting: Annotated[
        int, Meta(ge=0, description="Requests that may wait; further ones get 503 with `Retry-After`.")
    ] = 256


class WebuiConfig(Section, frozen=True, kw_only=True):
    """The web interface."""

    enable_ui: Annotated[
        bool, Meta(description="Serve a web interface at `/` where a plugin brings one.")
    ] = False


class LoggingConfig(Section, frozen=True, kw_only=True):
    """What is logged, and how."""

    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        Meta(description="Least severe messages that are logged."),
    ] = "INFO"
    level: Annotated[int, Meta(ge=0, le=50, description="Accepted for older files; `log_level` counts.")] = 20
    format: Annotated[
        Literal["text", "json"], Meta(description="Lines for people, or one JSON object for each line.")
    ] = "text"


class PersonalityOverride(Section, frozen=True, kw_only=True):
    """Changes to one personality."""

    enabled: Annotated[bool, Meta(description="Whether the personality is listed and usable.")] = True
    parameters: Annotated[
        dict[str, Any],
        Meta(
            description="Generation defaults such as `temperature`, which win over the personality's own; null takes"
            " one away."
        ),
    ] = {}
    binding: Annotated[
        InstanceName | None,
        Meta(description="Binding instance that answers text requests which name none."),
    ] = None
    model: Annotated[NonEmpty | None, Meta(description="Model for requests that name none.")] = None
    language: Annotated[
        NonEmpty | None,
        Meta(description="Use this translation of its texts, a file of its folder `languages`."),
    ] = None
    functions: Annotated[
        tuple[NonEmpty, ...] | None,
        Meta(description="Functions that the model may call, instead of the personality's own list."),
    ] = None
    allow_scripts: Annotated[
        bool | None,
        Meta(
            description="Run its `scripts/workflow.py`: code with the rights of the server's user. Null: only if it"
            " came with the server."
        ),
    ] = None
    allow_legacy_scripts: Annotated[
        bool,
        Meta(
            description="Run its `scripts/processor.py`, written for the desktop program, as far as possible."
        ),
    ] = False


class ScriptsConfig(Section, frozen=True, kw_only=True):
    """Limits of the process that a scripted personality runs in, for each request."""

    timeout: Annotated[
        float, Meta(gt=0, le=_DAY, description="Seconds until a script is killed, generations included.")
    ] = 600.0
    memory_mb: Annotated[int, Meta(ge=128, le=1 << 20, description="Address space in MiB.")] = 1024
    max_output_mb: Annotated[
        int,
        Meta(ge=1, le=1 << 10, description="What a script may send in MiB, generations' requests included."),
    ] = 32
    max_generations: Annotated[int, Meta(ge=1, description="Generations that one request may ask for.")] = 64
    max_running: Annotated[
        int,
        Meta(
            ge=1, description="Scripts that run at once; further ones wait `resource_manager.queue_timeout`."
        ),
    ] = 8


class FunctionOverride(Section, frozen=True, kw_only=True):
    """Changes to one function, or to all of a file."""

    enabled: Annotated[bool, Meta(description="Whether it is listed and can be called.")] = True
    timeout: Annotated[
        Annotated[float, Meta(gt=0, le=_DAY)] | None,
        Meta(description="Seconds until a call is stopped. Null: `functions.timeout`."),
    ] = None


class FunctionsConfig(Section, frozen=True, kw_only=True):
    """Functions that models and scripts may call."""

    timeout: Annotated[float, Meta(gt=0, le=_DAY, description="Seconds until a call is stopped.")] = 30.0
    max_rounds: Annotated[
        int,
        Meta(
            ge=1, le=100, description="How often a model may call functions before it has to answer without."
        ),
    ] = 8
    memory_mb: Annotated[
        Annotated[int, Meta(ge=128, le=1 << 20)] | None,
        Meta(description="Address space of the process of a file's functions in MiB. Null: no limit."),
    ] = None


class WorkersConfig(Section, frozen=True, kw_only=True):
    """Limits of the processes that engines run in, all in seconds."""

    heartbeat_interval: Annotated[
        float, Meta(gt=0, le=_DAY, description="Time between two signs of life of a worker.")
    ] = 2.0
    heartbeat_timeout: Annotated[
        float, Meta(gt=0, le=_DAY, description="Silence after which a worker counts as hung and is killed.")
    ] = 10.0
    stall_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=_DAY,
            description="A request that yields nothing for so long is hung as well, unless its engine can be seen to"
            " get on.",
        ),
    ] = 600.0
    start_timeout: Annotated[float, Meta(gt=0, le=_DAY, description="Longest start of a worker.")] = 60.0
    restart_delay: Annotated[
        float,
        Meta(ge=0, le=_DAY, description="Pause before a crashed worker starts again; doubles each time."),
    ] = 0.2
    restart_delay_max: Annotated[float, Meta(ge=0, le=_DAY, description="Longest such pause.")] = 30.0


class DownloadsConfig(Section, frozen=True, kw_only=True):
    """Where models come from, and how they are fetched."""

    hub_url: Annotated[
        Annotated[
            str,
            Meta(pattern=r"\Ahttps?://[^\s/@?#]+(/[^\s@?#]*)?\Z", extra={"allowed": "an http(s) address"}),
        ]
        | None,
        Meta(
            description="A hub that speaks Hugging Face's protocol. Null: the `hub_url` of a protocol's section,"
            " such as `transports.wingman`, else `HF_ENDPOINT`, else https://huggingface.co."
        ),
    ] = None
    hub_token: Annotated[
        Secret | None,
        Meta(description="Token for gated and private models; sent to the hub alone. Null: `HF_TOKEN`."),
    ] = None
    parallel: Annotated[int, Meta(ge=1, le=16, description="Files that are downloaded at once.")] = 2
    retries: Annotated[
        int,
        Meta(ge=0, le=100, description="Further tries after a failure that may pass, while nothing arrives."),
    ] = 5
    stall_timeout: Annotated[
        float, Meta(gt=0, le=_DAY, description="Seconds without a byte after which a connection is given up.")
    ] = 30.0


class MainConfig(Section, frozen=True, kw_only=True):
    """Everything that `main_config.*` may hold. A section that is absent or null has its defaults."""

    server: ServerConfig = ServerConfig()
    paths: PathsConfig = PathsConfig()
    security: SecurityConfig = SecurityConfig()
    defaults: DefaultsConfig = DefaultsConfig()
    bindings_map: Annotated[
        dict[InstanceName, NonEmpty],
        Meta(
            description="Your binding instances: name to binding type. Empty: the built-in instances of the"
            " installed plugins."
        ),
    ] = msgspec.field(default_factory=dict)
    resource_manager: ResourceManagerConfig = ResourceManagerConfig()
    webui: WebuiConfig = WebuiConfig()
    logging: LoggingConfig = LoggingConfig()
    personalities_config: Annotated[
        dict[str, PersonalityOverride],
        Meta(
            description="Changes to single personalities; the key is the personality's id, or the name of its folder"
            " for all of that name."
        ),
    ] = msgspec.field(default_factory=dict)
    scripts: ScriptsConfig = ScriptsConfig()
    functions: FunctionsConfig = FunctionsConfig()
    functions_config: Annotated[
        dict[str, FunctionOverride],
        Meta(
            description="Changes to single functions; the key is the function's name (`file.function`) or the file's."
        ),
    ] = msgspec.field(default_factory=dict)
    transports: Annotated[
        dict[str, dict[str, Any]],
        Meta(
            description="Settings of each protocol by its name. All know `enabled` (default true); the"
            " transport's own documentation lists the rest."
        ),
    ] = msgspec.field(default_factory=dict)
    workers: WorkersConfig = WorkersConfig()
    downloads: DownloadsConfig = DownloadsConfig()
