"""Bodies as they travel: what clients send and what they get. `/docs` is made from these Structs.

Names, order and nulls are the published ones of lollms_server 0.3.2. Fields that are UNSET are left out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

InputType = Literal["text", "image", "audio", "video", "document"]
GenerationType = Literal["ttt", "tti", "ttv", "ttm", "tts", "stt", "i2i", "audio2audio"]
OutputType = Literal["text", "image", "audio", "video", "json", "error", "info"]
EventType = Literal["chunk", "final", "error", "info", "function_call"]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]

# --- POST /api/v1/generate --------------------------------------------------------------------------------


class InputData(msgspec.Struct, frozen=True, kw_only=True):
    """One input: a text or a piece of media, and what it is for."""

    type: InputType
    role: Annotated[str, Meta(description="user_prompt, assistant_reply, system_context, input_image, …")]
    data: Annotated[str, Meta(description="Text; or base64 or a data: URL. Addresses are never fetched.")]
    mime_type: Annotated[str | None, Meta(description="Needed for base64 image, audio and video.")] = None
    metadata: dict[str, Any] | None = None


class GenerateBody(msgspec.Struct, frozen=True, kw_only=True):
    """What shall be generated."""

    input_data: Annotated[list[InputData], Meta(description="At least one; oldest turn first.")] = []
    text_prompt: Annotated[str | None, Meta(description="Deprecated: the first user_prompt.")] = None
    personality: str | None = None
    binding_name: Annotated[str | None, Meta(description="A binding instance; else the default one.")] = None
    model_name: str | None = None
    generation_type: GenerationType = "ttt"
    stream: Annotated[bool, Meta(description="Answer with server-sent events.")] = False
    parameters: Annotated[
        dict[str, Any] | None,
        Meta(description="max_tokens, temperature, top_k, top_p, seed, stop, system_message, …"),
    ] = None
    functions: list[Any] | None = None


class OutputData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One piece of the answer; media are base64."""

    type: OutputType
    data: Any
    mime_type: str | None = None
    thoughts: Annotated[str | None, Meta(description="What stood between <think> tags.")] = None
    metadata: dict[str, Any]


class GenerateAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole answer; fields that are null are left out."""

    personality: str | None = None
    request_id: str
    output: list[OutputData]
    execution_time: Annotated[float, Meta(description="Seconds.")]


class StreamChunk(msgspec.Struct, frozen=True):
    """One server-sent event, after `data: `; `final` comes last and holds the list of OutputData."""

    type: EventType
    content: Any = None
    thoughts: str | None = None
    metadata: dict[str, Any] = {}


# --- tokens -----------------------------------------------------------------------------------------------


class TokenizeBody(msgspec.Struct, frozen=True, kw_only=True):
    """A text to tell the tokens of."""

    text: str
    binding_name: Annotated[
        str | None, Meta(description="A binding instance; else defaults.ttt_binding.")
    ] = None
    model_name: str | None = None
    add_bos: Annotated[bool, Meta(description="With the token that begins a sequence.")] = False
    add_eos: Annotated[bool, Meta(description="With the token that ends a sequence.")] = False


class DetokenizeBody(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens to tell the text of."""

    tokens: list[TokenId]
    binding_name: Annotated[
        str | None, Meta(description="A binding instance; else defaults.ttt_binding.")
    ] = None
    model_name: str | None = None


class TokenizeAnswer(msgspec.Struct, frozen=True):
    """Token ids and how many they are."""

    tokens: list[int]
    count: int


class DetokenizeAnswer(msgspec.Struct, frozen=True):
    """The text of the tokens."""

    text: str


class CountTokensAnswer(msgspec.Struct, frozen=True):
    """How many tokens the text has."""

    count: int


# --- listings ---------------------------------------------------------------------------------------------


class HealthAnswer(msgspec.Struct, frozen=True):
    """The server answers; `version` is this program's own."""

    status: str
    version: str
    api_key_required: bool


class BindingTypeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An installed kind of binding; the last three fields are there only if it cannot work on this machine."""

    type_name: str
    display_name: str
    version: str
    author: str
    description: str
    requirements: tuple[str, ...]
    supports_streaming: bool
    documentation_url: str | None
    supported_output_modalities: tuple[str, ...]
    supported_input_modalities: tuple[str, ...]
    available: bool | UnsetType = UNSET
    error: str | UnsetType = UNSET
    hint: str | UnsetType | None = UNSET


class ListBindingsAnswer(msgspec.Struct, frozen=True):
    """Installed binding types, and every configured instance with its settings, secrets left out.

    An instance that does not serve has the additional keys `state`, `error` and `hint`.
    """

    binding_types: dict[str, BindingTypeInfo]
    binding_instances: dict[str, dict[str, Any]]


class ListActiveBindingsAnswer(msgspec.Struct, frozen=True):
    """The instances that serve, with their settings, secrets left out."""

    bindings: dict[str, dict[str, Any]]


class PersonalityInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A personality; its key in the listing is what requests name, `path` the name of its folder.

    The fields after `path` are there only where there is something to say.
    """

    name: str
    author: str
    version: str
    description: str
    category: str
    language: str
    tags: tuple[str, ...]
    icon: str
    is_scripted: bool
    path: str
    welcome_message: Annotated[str | UnsetType, Meta(description="To show first, if it is its own.")] = UNSET
    disclaimer: Annotated[str | UnsetType, Meta(description="To show before use.")] = UNSET
    script_enabled: Annotated[
        bool | UnsetType,
        Meta(description="Whether its script may run; without, its conditioning works alone."),
    ] = UNSET
    legacy_script: Annotated[
        bool | UnsetType, Meta(description="Whether its script is one of the desktop program.")
    ] = UNSET
    languages: Annotated[
        tuple[str, ...] | UnsetType, Meta(description="What its texts are translated into.")
    ] = UNSET
    problems: Annotated[
        tuple[str, ...] | UnsetType, Meta(description="What is wrong with its files or not done as they say.")
    ] = UNSET


class PersonalityAnswer(PersonalityInfo, frozen=True, kw_only=True):
    """All that a client needs to offer a personality; its conditioning stays with the server."""

    id: str
    has_logo: Annotated[
        bool, Meta(description="Whether GET /api/v1/get_personality_logo/{id} gives a picture.")
    ]
    greets_in_history: Annotated[
        bool, Meta(description="Whether to begin a history with the welcome message.")
    ]
    user_name: str
    user_message_prefix: str
    ai_message_prefix: str
    link_text: str
    anti_prompts: tuple[str, ...]
    prompts_list: Annotated[tuple[str, ...], Meta(description="Example prompts and templates, as written.")]
    functions: Annotated[
        tuple[str, ...], Meta(description="Functions of this server that the model may call.")
    ]
    parameters: Annotated[dict[str, Any], Meta(description="Its generation defaults.")]
    binding_name: str | None
    model_name: str | None


class ListPersonalitiesAnswer(msgspec.Struct, frozen=True):
    """The enabled personalities."""

    personalities: dict[str, PersonalityInfo]


class ListFunctionsAnswer(msgspec.Struct, frozen=True):
    """Names of the functions, sorted."""

    functions: list[str]


class ListModelsAnswer(msgspec.Struct, frozen=True):
    """Names in the subfolders of `paths.models_folder`, sorted."""

    models: dict[str, list[str]]


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model; null where it is not known."""

    name: str
    size: int | None
    modified_at: str | None
    quantization_level: str | None
    format: str | None
    family: str | None
    families: tuple[str, ...] | None
    parameter_size: str | None
    context_size: int | None
    max_output_tokens: int | None
    template: str | None
    license: str | None
    homepage: str | None
    supports_vision: bool
    supports_audio: bool
    details: dict[str, Any]


class ListAvailableModelsAnswer(msgspec.Struct, frozen=True):
    """The models that an instance can use."""

    binding_instance_name: str
    models: list[ModelEntry]


class ModelInfoAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one model of an instance."""

    binding_instance_name: str
    model_name: str
    model_type: str | None
    context_size: int | None
    max_output_tokens: int | None
    supports_vision: bool
    supports_audio: bool
    supports_streaming: bool
    details: dict[str, Any]


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """Which instance serves each kind of generation when a request names none, and the default sizes."""

    ttt_binding: str | None
    tti_binding: str | None
    tts_binding: str | None
    stt_binding: str | None
    ttv_binding: str | None
    ttm_binding: str | None
    default_context_size: int
    default_max_output_tokens: int


class GetDefaultBindingsAnswer(msgspec.Struct, frozen=True):
    """The section `defaults` as it is in force."""

    defaults: Defaults


class ContextLengthAnswer(msgspec.Struct, frozen=True):
    """Tokens that the default text model can look back on."""

    context_length: int


class ErrorAnswer(msgspec.Struct, frozen=True):
    """What went wrong: one line, or for 422 a list of problems with `loc`, `msg`, `type` and `input`."""

    detail: str | list[dict[str, Any]]
