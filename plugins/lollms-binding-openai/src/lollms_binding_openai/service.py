"""What both binding types share: one client, and what the service has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from lollms_kernel.contracts import Binding, BindingContext
from lollms_kernel.errors import BindingUnavailable, LollmsError, ModelNotFound, Unavailable
from lollms_kernel.types import ModelInfo
from lollms_kernel.upstream import SYSTEM, Memory, Pauses, Service, Upstream

from .catalogue import kind_of
from .client import base_url, is_openai, make_client
from .failures import explain
from .installation import missing_library
from .listing import Engine, Entry, engine_of, read_listing, with_props
from .settings import Kind, ServiceSettings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MEMORY = 300.0
"""Seconds that a listing is taken for true."""
AGAIN = 10.0
"""Seconds after which an unknown name makes it worth asking for the listing again."""
LISTING_TIMEOUT = 30.0

_UNLISTED = (403, 404, 405, 501)
"""Statuses of services that list nothing, FastGPT for one, and of keys that may generate but not list."""


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """What a service has of what this binding type uses; `models` is None where it does not tell."""

    models: dict[str, ModelInfo] | None
    engine: Engine


class ServiceBinding(Binding):
    """A binding to one service that speaks OpenAI's API; `kinds` says which of its models are offered."""

    kinds: ClassVar[tuple[Kind, ...]]
    """The first one is what the default model makes."""
    settings: ServiceSettings
    pauses: Pauses = SYSTEM

    def __init__(self, settings: ServiceSettings, context: BindingContext) -> None:
        super().__init__(settings, context)
        self.url = base_url(settings)
        self.official = is_openai(self.url)
        self.service = Service(
            name="OpenAI" if self.official else "OpenAI-compatible service",
            instance=self.name,
            address_setting="base_url",
            key_setting="api_key",
        )
        self._client: AsyncOpenAI | None = None
        self._memory: Memory[str, Catalogue] = Memory(MEMORY)
        self._known: Catalogue | None = None
        self._asked = float("-inf")

    @classmethod
    def unavailable_reason(cls) -> LollmsError | None:
        """Whether the library openai is missing."""
        return missing_library()

    async def open(self) -> None:
        """Make the client; the service is asked nothing yet. Raises LollmsError where a key is missing."""
        self._client = await asyncio.to_thread(make_client, self.settings)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @property
    def client(self) -> AsyncOpenAI:
        """The vendor's client. Raises BindingUnavailable before `open` and after `close`."""
        if self._client is None:
            raise BindingUnavailable(f"Binding instance '{self.name}' is not open.")
        return self._client

    def upstream(self, sent: dict[str, Any]) -> Upstream:
        """The way to the service for a request with this body; errors may name what is in it."""
        return Upstream(
            self.service, self.settings, lambda error: explain(self.service, error, sent), self.pauses
        )

    # --- models ---

    async def list_models(self) -> list[ModelInfo]:
        """What the service lists and this type can use; where it lists nothing, the default model."""
        models = (await self.catalogue()).models
        if models is not None:
            return list(models.values())
        return [self._unlisted(self.settings.default_model)] if self.settings.default_model else []

    async def get_model_info(self, model: str | None = None) -> ModelInfo:
        """What is known of a model, by default the instance's own. Raises ModelNotFound."""
        catalogue = await self.catalogue()
        found = self._find(catalogue, model)
        if found is None and time.monotonic() - self._asked > AGAIN:
            self._memory.forget()
            catalogue = await self.catalogue()
            found = self._find(catalogue, model)
        if found is None:
            known = ", ".join(list(catalogue.models or ())[:5]) or "none of this type"
            wanted = model or self.settings.default_model
            raise ModelNotFound(
                f"{self.service} has no model '{wanted}'."
                if wanted
                else f"No model was named for {self.service}.",
                hint=f"It has: {known}. `default_model` of the instance names the one for requests without a model.",
            )
        return found

    async def catalogue(self) -> Catalogue:
        """What the service has; asked for again after a while."""
        return await self._memory.recall("models", self._ask_catalogue)

    def kind(self, name: str) -> Kind | None:
        """What a model makes; the default model makes what this binding type is for."""
        kind = kind_of(name, self.settings.model_types)
        if kind not in self.kinds and name == self.settings.default_model:
            return self.kinds[0]
        return kind

    def adjusted(self, info: ModelInfo) -> ModelInfo:
        """The model with what the instance's settings say of it."""
        return info

    def beside(self, path: str) -> str:
        """The address of what an engine offers beside OpenAI's API, outside `/v1`."""
        return self.url.removesuffix("/v1") + path

    def _find(self, catalogue: Catalogue, model: str | None) -> ModelInfo | None:
        wanted = model or self.settings.default_model
        if catalogue.models is None:  # then it is taken to have whatever it is asked for
            return self._unlisted(wanted) if wanted else None
        found = catalogue.models.get(wanted or "")
        return self._stand_in(catalogue.models) if found is None and model is None else found

    def _stand_in(self, models: dict[str, ModelInfo]) -> ModelInfo | None:
        """The first model, where the default was not chosen by anybody and is not there.

        Not at OpenAI, where the first text model may be the dearest one. Images are the exception: the default of
        old, dall-e-3, was retired, and any image model is better than none.
        """
        untouched = type(self.settings)(type="", binding_instance_name="").default_model
        chosen = self.settings.default_model not in (None, untouched)
        if chosen or (self.official and self.kinds[0] == "ttt"):
            return None
        return next((info for name, info in models.items() if self.kind(name) == self.kinds[0]), None)

    def _unlisted(self, name: str) -> ModelInfo:
        return self._describe(Entry(id=name))

    def _describe(self, entry: Entry, props: object = None) -> ModelInfo:
        kind = self.kind(entry.id)
        info = entry.describe(kind if kind in self.kinds else self.kinds[0], self.official)
        return self.adjusted(with_props(info, props) if props else info)

    async def _ask_catalogue(self) -> Catalogue:
        """What the service says, or what it said last, where it can answer but not list for the moment."""
        try:
            self._known = await self._read_catalogue()
        except Unavailable:
            if self._known is None:
                raise
        self._asked = time.monotonic()
        return self._known

    async def _read_catalogue(self) -> Catalogue:
        entries = read_listing(await self._get("/models", _UNLISTED))
        if entries is None:
            return Catalogue(models=None, engine="openai" if self.official else "other")
        engine = engine_of(entries, self.official)
        offered = [entry for entry in entries if self.kind(entry.id) in self.kinds]
        alone = engine == "llama-server" and len(offered) == 1
        props = await self._get(self.beside("/props"), range(400, 600)) if alone else None
        return Catalogue(models={entry.id: self._describe(entry, props) for entry in offered}, engine=engine)

    async def _get(self, path: str, tolerated: Container[int]) -> object:
        """The JSON at a path; None where the service answers with one of these statuses."""
        from openai import APIStatusError

        async def ask() -> object:
            try:
                return await self.client.get(path, cast_to=object)
            except APIStatusError as error:
                if error.status_code in tolerated:
                    return None
                raise

        return await self.upstream({}).ask(
            ask, within=min(LISTING_TIMEOUT, self.settings.first_token_timeout)
        )
