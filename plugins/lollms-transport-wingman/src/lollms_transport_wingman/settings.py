"""The section `transports.wingman` of the main configuration."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from lollms_kernel.contracts import TransportSettings

Port = Annotated[int, Meta(ge=1, le=65535)]


class WingmanSettings(TransportSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both sides of a Wingman server: inference as llama-server does it, and control of models and downloads."""

    inference_port: Annotated[
        Port | None, Meta(description="Port of the llama-server and OpenAI APIs alone; null: main port only.")
    ] = 6567
    control_port: Annotated[
        Port | None, Meta(description="Port of Wingman's control API and WebSocket; null: none.")
    ] = 6568
    home: Annotated[str, Meta(min_length=1, description="Wingman's folder: models, database, logs.")] = (
        "~/.wingman"
    )
    hub_url: Annotated[
        str, Meta(pattern=r"\Ahttps?://", description="Where models are listed and downloaded.")
    ] = "https://huggingface.co"
    cors_origins: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(
            description="Web pages that may use the inference port without a key: exact origins, `localhost` for every"
            " page of this machine, `*` for all as llama-server has it. Pages with a valid key always may."
        ),
    ] = ("localhost",)
    alias: Annotated[
        str | None,
        Meta(description="Name of the default model in answers of the inference port; null: its own name."),
    ] = None
    binding: Annotated[
        str | None,
        Meta(description="Instance that the inference port serves; null: `defaults.ttt_binding`."),
    ] = None
    slots: Annotated[bool, Meta(description="Answer GET /slots, which shows prompts.")] = True
    metrics: Annotated[bool, Meta(description="Answer GET /metrics.")] = True
    change_props: Annotated[bool, Meta(description="Answer POST /props.")] = False
    ping_interval: Annotated[
        float,
        Meta(gt=0, le=3600, description="Seconds of silence after which a stream gets a comment as ping."),
    ] = 30.0
    null_content: Annotated[
        bool,
        Meta(
            description="Begin chat streams with `content: null` as llama-server does. False for Wingman's own UI,"
            " which would print `null`."
        ),
    ] = True
