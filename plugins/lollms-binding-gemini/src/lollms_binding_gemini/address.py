"""Where the service is, and which key may go there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from lollms_kernel.errors import BindingUnavailable, ConfigError

from .settings import ServiceSettings

GOOGLE = "https://generativelanguage.googleapis.com"
API_VERSION = "v1beta"


def base_url(settings: ServiceSettings) -> str:
    """Where the service is. Raises ConfigError for what is no address of one."""
    url = (settings.base_url or "").strip().rstrip("/").removesuffix(f"/{API_VERSION}").rstrip("/")
    if not url:
        return GOOGLE
    where = f"Binding instance '{settings.binding_instance_name}': `base_url`"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ConfigError(
            f"{where} is not an http or https address.", hint="Write it like https://gateway.example/gemini."
        )
    if "@" in parts.netloc:
        raise ConfigError(
            f"{where} holds a name or a password.",
            hint="Listings show it: put the secret into `google_api_key`.",
        )
    return url


def is_google(url: str) -> bool:
    """Whether this address is Google's own, over TLS."""
    parts = urlsplit(url)
    return parts.scheme == "https" and (parts.hostname or "").endswith(".googleapis.com")


def api_key(settings: ServiceSettings, environment: Mapping[str, str] = os.environ) -> str | None:
    """The instance's own key; at Google itself else the environment's.

    Raises BindingUnavailable if there is none for Google.
    """
    own = (settings.google_api_key or "").strip()
    if own or not is_google(base_url(settings)):
        return own or None
    found = environment.get("GOOGLE_API_KEY", "").strip()
    if not found:
        raise BindingUnavailable(
            f"Binding instance '{settings.binding_instance_name}' has no key for Gemini.",
            hint="Set `google_api_key` in the instance's settings, or the environment variable GOOGLE_API_KEY.",
        )
    return found
