"""What bindings to services over the network share: time limits, retries, clear errors, memory of what was asked.

A binding makes one `Upstream` in `open` and sends every call through it:

    service = Service(name="Example", instance=self.name, address_setting="base_url", key_setting="api_key")
    self.upstream = Upstream(service, self.settings, explain)
    models = await self.upstream.ask(lambda: client.models.list())
    async with aclosing(self.upstream.stream(lambda: client.chat(stream=True))) as parts: ...

`explain(error)` turns what the vendor's library raises into an error of ours, or gives None for what it does not
know; the network's own errors are known here.
"""

from __future__ import annotations

from .address import on_this_machine
from .answers import Upstream
from .failures import Service
from .functions import arguments_of, calls_in, described_functions
from .images import ImageFetcher, fetch_images
from .memory import Memory
from .pacing import paced
from .retries import SYSTEM, Pauses, retry_after, retrying
from .settings import UpstreamSettings

__all__ = [
    "SYSTEM",
    "ImageFetcher",
    "Memory",
    "Pauses",
    "Service",
    "Upstream",
    "UpstreamSettings",
    "arguments_of",
    "calls_in",
    "described_functions",
    "fetch_images",
    "on_this_machine",
    "paced",
    "retry_after",
    "retrying",
]
