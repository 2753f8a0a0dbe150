"""Makes the vendor's client, and decides which secrets may go where.

By itself the library sends to any address what it finds in the environment: OPENAI_API_KEY, OPENAI_ORG_ID,
OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS. Those belong to OpenAI, so another service gets none of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lollms_kernel.errors import BindingUnavailable, ConfigError
from lollms_kernel.upstream import on_this_machine

from .settings import ServiceSettings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
_OPENAI_HOST = "api.openai.com"


def base_url(settings: ServiceSettings) -> str:
    """Where the service is. Raises ConfigError for what is no address of one."""
    url = (settings.base_url or "").strip().rstrip("/")
    if not url:
        return OPENAI_URL
    where = f"Binding instance '{settings.binding_instance_name}': `base_url`"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"{where} is not an http or https address.", hint="Write it like http://127.0.0.1:8000/v1."
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{where} holds a name or a password.", hint="Listings show it: put the secret into `api_key`."
        )
    return url


def is_openai(url: str) -> bool:
    """Whether this address is OpenAI's own, its regions included, over TLS."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" and (host == _OPENAI_HOST or host.endswith(f".{_OPENAI_HOST}"))


def api_key(settings: ServiceSettings, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key to send, if any: the instance's own, or at OpenAI itself the environment's."""
    own = (settings.api_key or "").strip()
    if own:
        return own
    if is_openai(base_url(settings)):
        return environment.get("OPENAI_API_KEY", "").strip() or None
    return None


def make_client(settings: ServiceSettings) -> AsyncOpenAI:
    """The client of one instance; connects to nothing yet. Raises LollmsError with the cure where it never can.

    Imports the library, which takes a while: call it in a thread.
    """
    url, key = base_url(settings), api_key(settings)
    ours = is_openai(url)
    if ours and key is None:
        raise BindingUnavailable(
            f"Binding instance '{settings.binding_instance_name}' has no key for OpenAI.",
            hint="Set `api_key` in the instance's settings, or the environment variable OPENAI_API_KEY.",
        )
    import httpx2
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    from .credentials import Credentials

    connect, read, write, pool = settings.http_timeouts
    timeout = httpx2.Timeout(connect=connect, read=read, write=write, pool=pool)
    http = DefaultAsyncHttpxClient(
        auth=Credentials(key, stopped=() if ours else ambient_headers()),
        timeout=timeout,
        follow_redirects=False,  # a redirect would carry the prompt to an address that nobody configured
        trust_env=not on_this_machine(url),  # proxies
        verify=httpx2.create_ssl_context(),  # SSL_CERT_FILE and SSL_CERT_DIR count in any case
    )
    return AsyncOpenAI(
        api_key="unused",  # `Credentials` has the key; without one here the library looks into the environment
        admin_api_key="",
        webhook_secret="",
        base_url=url,
        timeout=timeout,
        max_retries=0,  # `Upstream` retries, as the instance's settings say
        http_client=http,
    )


def ambient_headers(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Names of the headers that the library adds from the environment."""
    lines = environment.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    custom = (name.strip() for name, colon, _ in (line.partition(":") for line in lines) if colon)
    return ("OpenAI-Organization", "OpenAI-Project", *custom)
