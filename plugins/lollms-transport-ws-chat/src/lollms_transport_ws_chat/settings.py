"""The section `transports.ws_chat` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from lollms_kernel.contracts import Secret, TransportSettings

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Name = Annotated[str, Meta(min_length=1)]


class WsChatSettings(TransportSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Voice chat over WebSocket; null leaves a decision to the environment or to the rest of the configuration."""

    port: Annotated[
        Annotated[int, Meta(ge=0, le=65_535)] | None,
        Meta(
            description="A port of its own beside `/ws/chat` on the main port; 0: none. null: 9000, if it is free."
        ),
    ] = None

    # --- turns ---
    max_incomplete_sentences: Annotated[
        Annotated[int, Meta(ge=1, le=50)] | None,
        Meta(
            description="So many pieces are answered even if the turn seems incomplete. null: MAX_INCOMPLETE_SENTENCES,"
            " else 3."
        ),
    ] = None
    max_response_timeout: Annotated[
        Seconds | None,
        Meta(
            description="Seconds of silence after which an incomplete turn is answered. null: MAX_RESPONSE_TIMEOUT,"
            " else 5."
        ),
    ] = None
    turn_detector: Annotated[
        Literal["embedded", "rule", "folder", "always", "never", "punct"],
        Meta(description="What tells whether a turn is complete."),
    ] = "embedded"
    turn_detector_threshold: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | Literal["auto"],
        Meta(description="Probability from which on a turn is complete; auto: what suits the detector."),
    ] = "auto"
    turn_detector_folder: Annotated[
        Name | None, Meta(description="For `folder`: your model, relative to the root folder.")
    ] = None
    language: Annotated[
        Name | None, Meta(description="Language of the users for the detector, e.g. `en`; null: unknown.")
    ] = None
    evaluate_on_playback_end: Annotated[
        bool,
        Meta(
            description="Look at what was said during playback as soon as it ends, instead of waiting for silence."
        ),
    ] = False

    # --- answers ---
    backend: Annotated[
        Literal["auto", "kernel", "fastgpt"],
        Meta(
            description="Who answers: this server's bindings, or a service. auto: the service if it has an address and"
            " `binding` names nothing."
        ),
    ] = "auto"
    binding: Annotated[Name | None, Meta(description="Binding instance; null: `defaults.ttt_binding`.")] = (
        None
    )
    model: Annotated[Name | None, Meta(description="Model; null: the binding's own.")] = None
    personality: Annotated[Name | None, Meta(description="Personality; null: none.")] = None
    allow_client_choice: Annotated[
        bool,
        Meta(description="Let clients name `binding`, `model` and `personality` in the address."),
    ] = True
    api_url: Annotated[
        Name | None,
        Meta(
            description="Address of FastGPT or another service with its API. null: CHAT_MODEL_API_URL, if set."
        ),
    ] = None
    api_key: Annotated[Secret | None, Meta(description="Its key. null: CHAT_MODEL_API_KEY.")] = None
    app_id: Annotated[Name | None, Meta(description="FastGPT's application. null: CHAT_MODEL_APP_ID.")] = None
    server_side_history: Annotated[
        bool,
        Meta(
            description="Send FastGPT a chatId and only the last message, so that it keeps the conversation."
        ),
    ] = False
    reply_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="Seconds that a whole answer may take.")
    ] = 120.0

    # --- what is spoken ---
    welcome: Annotated[
        str | None,
        Meta(
            description="First message of a new session; empty: none. null: the personality's, else a greeting."
        ),
    ] = None
    welcome_from_backend: Annotated[
        bool, Meta(description="Let the model write the first message; `welcome` is what it is told.")
    ] = False
    fixed_tts_duration: Annotated[
        Annotated[float, Meta(gt=0, le=3600)] | None,
        Meta(description="Seconds that speaking any answer takes; null: estimated from its text."),
    ] = None
    tts_rate: Annotated[
        float, Meta(gt=0, le=10, description="How fast answers are spoken; 2 is twice as fast.")
    ] = 1.0
    max_tts_duration: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="Longest estimate in seconds; null: none.")
    ] = None

    # --- sessions ---
    session_ttl: Annotated[
        float, Meta(gt=0, le=31_536_000, description="Seconds that a session outlives its connection.")
    ] = 3600.0
    store: Annotated[
        str,
        Meta(
            pattern=r"\A(memory|file|rediss?://\S+|unix://\S+)\Z",
            extra={"allowed": "memory, file or a Redis address such as `redis://127.0.0.1:6379/0`"},
            description="Where sessions outlive the server: `file`, a Redis address, or `memory`: nowhere.",
        ),
    ] = "file"
    store_folder: Annotated[
        Name, Meta(description="For `file`: the folder, relative to the root folder.")
    ] = "personal/voice_chat"
    max_sessions: Annotated[
        Count, Meta(description="Sessions in memory; the longest disconnected ones go first.")
    ] = 10_000
    max_history: Annotated[
        Annotated[int, Meta(ge=2)], Meta(description="Messages of a conversation that are kept and sent.")
    ] = 200
    duplicate_policy: Annotated[
        Literal["replace", "reject"],
        Meta(description="What a second connection of the same client does to the first one."),
    ] = "replace"
    allow_client_id_override: Annotated[
        bool, Meta(description="Let `payload.client_id` speak for a session that has no connection.")
    ] = True

    # --- limits ---
    max_text_chars: Annotated[Count, Meta(description="Longest text of one message.")] = 8000
    max_connections: Annotated[Count, Meta(description="Connections at once; further ones get 1013.")] = 2000
    max_connections_per_address: Annotated[
        Count | None, Meta(description="The same for one network address; null: no limit.")
    ] = None
    messages_per_second: Annotated[
        float, Meta(gt=0, description="Messages that one connection may send in the long run.")
    ] = 5.0
    message_burst: Annotated[Count, Meta(description="Messages that it may send at once.")] = 20
    auth_timeout: Annotated[
        float, Meta(gt=0, le=300, description="Seconds in which the key must come where one is needed.")
    ] = 10.0
    allowed_origins: Annotated[
        tuple[Name, ...] | None,
        Meta(
            description="Web origins that may connect, out of those that the server allows; null: all of those."
        ),
    ] = None

    # --- log ---
    log_style: Annotated[
        Literal["document", "server"],
        Meta(description="Lines of the published format, or the server's own; JSON logs are always its own."),
    ] = "document"
    log_text: Annotated[bool, Meta(description="Log the beginning of what was said.")] = True
