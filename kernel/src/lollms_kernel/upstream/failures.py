"""What goes wrong with a service over the network, as errors that say who cures it and how.

A message never holds a key, an address or what the service wrote: those may be secret, and they are not ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..errors import (
    BindingUnavailable,
    GenerationFailed,
    InvalidRequest,
    LollmsError,
    ModelNotFound,
    NotSupported,
    PayloadTooLarge,
    Unavailable,
)
from .retries import retry_after

_NO_WAY = set(
    "ConnectError ConnectTimeout ConnectionRefusedError ProxyError UnsupportedProtocol InvalidURL gaierror".split()
)
_SILENT = {"TimeoutException", "TimeoutError"}
_DROPPED = {"NetworkError", "ProtocolError", "ConnectionError"}


class TooSlow(Unavailable):
    """The service is too slow; asking again at once would only make it slower."""

    retryable = False


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service as messages call it, and the settings that lead to it."""

    name: str
    instance: str
    address_setting: str
    key_setting: str | None = None
    start_hint: str = ""
    """What starts it where it should run on this machine."""

    def __str__(self) -> str:
        return f"{self.name} (binding instance '{self.instance}')"

    # --- answers that are refusals ---

    def refused(
        self, status: int, headers: Mapping[str, str] | None = None, model: str | None = None
    ) -> LollmsError:
        """The error for an HTTP status other than 2xx. `model` is the one that the request named."""
        if status in (401, 403):
            return self.wrong_key(status)
        if status == 402:
            return self.quota_exhausted()
        if status == 404:
            return self.unknown_model(model) if model else self.wrong_address(status)
        if status == 413:
            return PayloadTooLarge(
                f"{self} refused the request as too large.", hint="Send less or smaller media."
            )
        if status == 429:
            return self.busy(retry_after(headers or {}))
        if status in (405, 501):
            return NotSupported(f"{self} cannot do this (HTTP {status}).")
        if 300 <= status < 400:
            return self.wrong_address(status)
        if status in (408, 409, 425) or status >= 500:
            return Unavailable(
                f"{self} failed (HTTP {status}).",
                hint="The fault is on its side; try again later.",
                retry_after=retry_after(headers or {}),
            )
        return InvalidRequest(
            f"{self} refused the request (HTTP {status}).",
            hint="A parameter or an input does not suit it or the model.",
        )

    def wrong_key(self, status: int = 401) -> LollmsError:
        """It wants another key, or one at all: the operator can cure it, the client cannot."""
        key = self.key_setting
        cure = f"Set a valid `{key}` in the instance's settings." if key else "It must accept this server."
        return BindingUnavailable(f"{self} refused the key (HTTP {status}).", hint=cure)

    def unknown_model(self, model: str) -> LollmsError:
        """It has no such model, or none that this key may use."""
        return ModelNotFound(
            f"{self} has no model '{model}'.", hint="The listing of the instance's models names what it has."
        )

    def busy(self, seconds: float | None = None) -> LollmsError:
        """Too many requests for now."""
        return Unavailable(
            f"{self} takes no more requests for now (HTTP 429).",
            hint="Try again later, or raise the limit of the account there.",
            retry_after=seconds,
        )

    def quota_exhausted(self) -> LollmsError:
        """The account has nothing left; trying again does not help."""
        return BindingUnavailable(
            f"{self} refused: the quota or credit of the account is used up.",
            hint="See the account's billing page there.",
        )

    def blocked(self, reason: str | None = None) -> LollmsError:
        """It refuses the prompt for safety (an answer that is cut off is `Finished("content_filter")` instead)."""
        because = f" ({reason})" if reason else ""
        return InvalidRequest(f"{self} refused the prompt for safety reasons{because}.", hint="Rephrase it.")

    def wrong_address(self, status: int) -> LollmsError:
        """Something answers there, but not this service."""
        return BindingUnavailable(
            f"Where {self} should be, something else answers (HTTP {status}).",
            hint=f"Correct `{self.address_setting}` in the instance's settings.",
        )

    # --- no answer at all, or a broken one ---

    def unreachable(self) -> LollmsError:
        """Nothing listens there, or the network has no way to it."""
        start = f"{self.start_hint} " if self.start_hint else ""
        return BindingUnavailable(
            f"{self} cannot be reached.",
            hint=f"{start}`{self.address_setting}` in the instance's settings says where it is looked for.",
        )

    def too_slow(self, setting: str, seconds: float) -> LollmsError:
        """A single answer took longer than the setting allows."""
        return TooSlow(
            f"{self} did not answer within {seconds:g} s.",
            hint=f"It may be loading a large model or be busy; `{setting}` of the instance allows for more.",
        )

    def dropped(self) -> LollmsError:
        """The connection ended before the answer did."""
        return Unavailable(f"The connection to {self} broke.", hint="Try again.")

    def broken(self) -> LollmsError:
        """What it sent is no answer of its protocol."""
        return GenerationFailed(
            f"{self} sent an answer that cannot be read.",
            hint=f"Try again; if it stays, `{self.address_setting}` may lead to something else.",
        )

    def explain(self, error: BaseException) -> LollmsError:
        """The error for what the network libraries raise; `broken` for anything that is not known.

        httpx and httpx2 have the same names for the same things, so one look at the names does for both.
        """
        if isinstance(error, LollmsError):
            return error
        names = {kind.__name__ for kind in type(error).__mro__}
        if names & _NO_WAY:
            return self.unreachable()
        if "PoolTimeout" in names:
            return self.busy()
        if names & _SILENT:
            return TooSlow(
                f"{self} did not answer in time.", hint="The time-outs of the instance allow for more."
            )
        if names & _DROPPED:
            return self.dropped()
        return self.broken()
