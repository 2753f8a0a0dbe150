"""What an instance file of type `ollama_binding` may say."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from msgspec import Meta

from lollms_kernel.contracts import Secret
from lollms_kernel.errors import ConfigError
from lollms_kernel.upstream import Service, UpstreamSettings

DEFAULT_HOST = "http://localhost:11434"


class OllamaSettings(UpstreamSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one Ollama instance; `default_model` and `host` are those of the published binding."""

    host: Annotated[
        str,
        Meta(
            min_length=1,
            description="Where Ollama listens. The environment variable OLLAMA_HOST has no effect.",
        ),
    ] = DEFAULT_HOST
    api_key: Annotated[
        Secret | None,
        Meta(description="Sent as a bearer token, for ollama.com or a proxy. OLLAMA_API_KEY has no effect."),
    ] = None
    num_ctx: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Context size in tokens; null: what Ollama takes (4096 on most machines)."),
    ] = None
    truncate: Annotated[
        bool,
        Meta(
            description="Let Ollama cut prompts that do not fit, which it does without saying so; false: such a "
            "prompt is an error."
        ),
    ] = False
    keep_alive: Annotated[
        int | float | str | None,
        Meta(
            description="How long a model stays loaded after an answer: seconds or a text such as `30m`; 0: not at "
            "all, -1: for ever, null: what Ollama takes (5 minutes)."
        ),
    ] = None
    options: Annotated[
        dict[str, Any],
        Meta(description="Ollama's own options for every request, e.g. num_gpu; a request's parameters win."),
    ] = {}


def service_of(settings: OllamaSettings) -> Service:
    """How messages call the instance's Ollama."""
    return Service(
        name="Ollama",
        instance=settings.binding_instance_name,
        address_setting="host",
        key_setting="api_key",
        start_hint="Start it with `ollama serve`, or install it from https://ollama.com.",
    )


def check(settings: OllamaSettings) -> None:
    """Raise ConfigError for a host that would put a password into listings."""
    address = settings.host if "://" in settings.host else f"http://{settings.host}"
    try:
        parts = urlsplit(address)
        wrong = "@" in parts.netloc or parts.scheme not in ("http", "https") or parts.port == 0
    except ValueError:
        wrong = True
    if wrong:
        raise ConfigError(
            f"Binding instance '{settings.binding_instance_name}': `host` is no address of a server.",
            hint="Write it as `http://localhost:11434`, without user and password; a key belongs into `api_key`.",
        )
