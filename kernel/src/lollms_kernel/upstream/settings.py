"""The settings that every binding to a service over the network has."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..contracts import InstanceSettings


class UpstreamSettings(InstanceSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait for the service and how often to try; a binding adds its own fields in a subclass."""

    connect_timeout: Annotated[
        float, Meta(gt=0, le=600, description="Seconds for connecting to the service.")
    ] = 10.0
    first_token_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="Seconds until the service must have begun its answer.")
    ] = 120.0
    idle_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="Seconds of silence after which a begun answer has failed.")
    ] = 60.0
    max_retries: Annotated[
        int,
        Meta(
            ge=0,
            le=10,
            description="Further tries after a refusal that passes (429, 5xx), only before the answer has begun.",
        ),
    ] = 2
    fetch_image_urls: Annotated[
        bool,
        Meta(
            description="Fetch images that a client names by their http(s) address. Private, loopback and link-local "
            "addresses are refused in any case."
        ),
    ] = False

    @property
    def http_timeouts(self) -> tuple[float, float, float, float]:
        """Connect, read, write and pool for `httpx.Timeout(…)` and `httpx2.Timeout(…)`.

        Reading is limited by `Upstream` more exactly; this one is its net for what goes round it.
        """
        longest = max(self.first_token_timeout, self.idle_timeout)
        return self.connect_timeout, longest + 5, self.idle_timeout, longest
