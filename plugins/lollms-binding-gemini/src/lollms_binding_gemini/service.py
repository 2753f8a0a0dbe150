"""What both binding types share: one client of Google's service, and what the service has."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from abc import abstractmethod
from typing import Generic, TypeVar

from lollms_kernel.contracts import Binding, BindingContext
from lollms_kernel.errors import BindingUnavailable, LollmsError
from lollms_kernel.types import ModelInfo
from lollms_kernel.upstream import Service, Upstream

from .address import api_key, base_url, is_google
from .failures import explain
from .models import Models
from .sdk import Sdk
from .settings import Library, ServiceSettings

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=Sdk)

_CURES: dict[Library, str] = {
    "google-genai": "Run `pip install 'google-genai>=3,<4'` in the server's environment.",
    "google-generativeai": "Run `pip install 'google-generativeai==0.8.6'` in an environment of its own.",
}


def installed(library: Library) -> bool:
    """Whether a library is there; looks, never imports it."""
    try:
        return importlib.util.find_spec(library.replace("-", ".", 1).replace("-", "_")) is not None
    except ModuleNotFoundError:  # there is no package `google` at all
        return False


def missing(library: Library) -> LollmsError:
    """The error for a library that is not there."""
    return BindingUnavailable(f"The library {library} is not installed.", hint=_CURES[library])


class ServiceBinding(Binding, Generic[S]):
    """One configured way to Google's service. Every request names its own model, none changes what others get."""

    settings: ServiceSettings

    def __init__(self, settings: ServiceSettings, context: BindingContext) -> None:
        super().__init__(settings, context)
        self.url = base_url(settings)
        self.service = Service(
            name="Gemini" if is_google(self.url) else "The Gemini gateway",
            instance=self.name,
            address_setting="base_url",
            key_setting="google_api_key",
        )
        self.upstream = Upstream(self.service, settings, lambda error: explain(self.service, error))
        self._sdk: S | None = None
        self._models: Models | None = None
        self._greeting: asyncio.Task[None] | None = None

    @abstractmethod
    def make_sdk(self, key: str | None) -> S:
        """A client. Called in a thread, because importing the library takes a while."""

    @abstractmethod
    def make_models(self, sdk: S) -> Models:
        """What the instance can use of the service's models."""

    def untouched_default(self) -> bool:
        """Whether nobody chose the default model."""
        fresh = type(self.settings)(type="", binding_instance_name="")
        return self.settings.default_model == fresh.default_model

    # --- lifetime -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the client. Whether the service answers is found out beside, and logged."""
        key = api_key(self.settings)
        self._sdk = await asyncio.to_thread(self.make_sdk, key)
        self._models = self.make_models(self._sdk)
        self._greeting = asyncio.create_task(self._greet(), name=f"look for the service of {self.name}")

    async def close(self) -> None:
        """Close all connections."""
        if self._greeting is not None:
            self._greeting.cancel()
            await asyncio.wait([self._greeting])
        sdk, self._sdk, self._models, self._greeting = self._sdk, None, None, None
        if sdk is not None:
            await sdk.close()

    async def _greet(self) -> None:
        try:
            models = await self.models.every()
        except LollmsError as error:
            logger.warning("%s", error.detail)
        else:
            logger.info("%s has %d models", self.service, len(models))

    @property
    def sdk(self) -> S:
        """The client. Raises BindingUnavailable before `open` and after `close`."""
        if self._sdk is None:
            raise BindingUnavailable(f"Binding instance '{self.name}' is not open.")
        return self._sdk

    @property
    def models(self) -> Models:
        """The models. Raises BindingUnavailable before `open` and after `close`."""
        if self._models is None:
            raise BindingUnavailable(f"Binding instance '{self.name}' is not open.")
        return self._models

    # --- models ---------------------------------------------------------------------------------------------------

    async def list_models(self) -> list[ModelInfo]:
        """What the service has of what this type can use, at most five minutes old."""
        return await self.models.every()

    async def get_model_info(self, model: str | None = None) -> ModelInfo:
        """What the service says of a model, by default the instance's own. Raises ModelNotFound."""
        return await self.models.find(model)
