"""Which models the service has and what is known of them, remembered for a while."""

from __future__ import annotations

import logging
import re
from typing import Literal

import msgspec

from lollms_kernel.errors import LollmsError, ModelNotFound
from lollms_kernel.types import ModelInfo
from lollms_kernel.upstream import Memory, Upstream

from .sdk import RemoteModel, Sdk

logger = logging.getLogger(__name__)

LISTING_SECONDS = 300.0
LISTING_TIMEOUT = 30.0

Kind = Literal["ttt", "tti", "imagen", "tts", "embedding"]
"""What a model makes, and for images also how it is asked."""

_NAME = re.compile(r"[\w.\-]+(/[\w.\-]+)*")
_DRAWS = re.compile(r"image|nano-banana")
_GEMMA = re.compile(r"gemma-?([\d.]+)")
_PREFERRED = (re.compile(r"flash-lite"), re.compile(r"flash"))
_UNSTEADY = re.compile(r"preview|exp|latest")
_ALL = ("text", "image", "audio", "video", "document")
_OUTPUTS: dict[Kind, tuple[str, ...]] = {
    "ttt": ("text",),
    "tti": ("image",),
    "imagen": ("image",),
    "tts": ("audio",),
    "embedding": ("embedding",),
}
_TYPES: dict[Kind, str] = {"ttt": "ttt", "tti": "tti", "imagen": "tti", "tts": "tts", "embedding": "generic"}


class Limits(msgspec.Struct, frozen=True):
    """Tokens of context and of the longest answer where the service is not to be asked for them."""

    context_size: int | None
    max_output_tokens: int | None


class Models:
    """The models of one service of which an instance can use those of certain kinds, the first one by default."""

    def __init__(
        self,
        sdk: Sdk,
        upstream: Upstream,
        kinds: tuple[Kind, ...],
        *,
        default: str | None,
        untouched: bool,
        limits: Limits | None = None,
    ) -> None:
        self._sdk = sdk
        self._upstream = upstream
        self._kinds = kinds
        self._default = default
        self._untouched = untouched
        self._limits = limits
        self._listings: Memory[str, dict[str, RemoteModel]] = Memory(LISTING_SECONDS)
        self._unlisted: Memory[str, RemoteModel] = Memory(LISTING_SECONDS)
        self._told = False

    async def every(self) -> list[ModelInfo]:
        """What the instance can use."""
        listing = (await self._listing()).values()
        return [describe(model, self._limits) for model in listing if kind_of(model) in self._kinds]

    async def find(self, name: str | None) -> ModelInfo:
        """One by its name, with or without `models/`; None: the default. Raises ModelNotFound."""
        return describe(await self.raw(name), self._limits)

    async def raw(self, name: str | None) -> RemoteModel:
        """The same as the service describes it."""
        if name is None:
            return await self._default_model()
        plain = name.removeprefix("models/")
        if not _NAME.fullmatch(plain) or ".." in plain:
            raise self._upstream.service.unknown_model(name)
        listed = (await self._listing()).get(plain)
        if listed is not None:
            return listed
        return await self._unlisted.recall(plain, lambda: self._ask(plain))

    async def first(self, kind: Kind) -> str | None:
        """The name of the first model of a kind."""
        return next((name for name, model in (await self._listing()).items() if kind_of(model) == kind), None)

    async def _default_model(self) -> RemoteModel:
        if self._default is not None:
            try:
                return await self.raw(self._default)
            except ModelNotFound:
                if not self._untouched:
                    raise
        stand_in = _stand_in([model for model in (await self._listing()).values() if self._fits(model)])
        if stand_in is None:
            raise ModelNotFound(
                f"{self._upstream.service} has no model for requests that name none.",
                hint="`default_model` of the instance names one.",
            )
        if self._default is not None and not self._told:
            self._told = True
            logger.warning(
                "%s has no model '%s' any more; '%s' stands in for it. `default_model` of the instance names another.",
                self._upstream.service,
                self._default,
                stand_in.name,
            )
        return stand_in

    def _fits(self, model: RemoteModel) -> bool:
        """Whether it makes what the instance is mainly for."""
        kind = kind_of(model)
        return kind is not None and _OUTPUTS[kind] == _OUTPUTS[self._kinds[0]]

    async def _listing(self) -> dict[str, RemoteModel]:
        async def ask() -> dict[str, RemoteModel]:
            models = await self._upstream.ask(self._sdk.models, within=self._patience)
            return {model.name: model for model in models if model.name}

        return await self._listings.recall("all", ask)

    async def _ask(self, name: str) -> RemoteModel:
        try:
            return await self._upstream.ask(lambda: self._sdk.model(name), within=self._patience)
        except LollmsError as error:
            if error.status != 404:
                raise
            known = ", ".join([info.name for info in await self.every()][:5]) or "none of this type"
            raise ModelNotFound(
                f"{self._upstream.service} has no model '{name}'.", hint=f"It has: {known}."
            ) from None

    @property
    def _patience(self) -> float:
        return min(LISTING_TIMEOUT, self._upstream.limits.first_token_timeout)


def kind_of(model: RemoteModel) -> Kind | None:
    """What a model makes; None for those that are asked in a way that is not spoken here (video, live, answers)."""
    name, methods = model.name.lower(), set(model.methods)
    if "generateContent" in methods:
        if "-tts" in name:
            return "tts"
        return "tti" if _DRAWS.search(name) else "ttt"
    if "predict" in methods and "imagen" in name:
        return "imagen"
    if methods & {"embedContent", "batchEmbedContents", "embedText"}:
        return "embedding"
    return None


def describe(model: RemoteModel, limits: Limits | None) -> ModelInfo:
    """A model as listings show it. `limits` replace those that the service tells."""
    kind = kind_of(model)
    writes = kind == "ttt"
    known = {
        "display_name": model.display_name,
        "description": model.description,
        "version": model.version,
        "methods": list(model.methods),
        "thinking": model.thinking,
        "temperature": model.temperature,
        "max_temperature": model.max_temperature,
        "top_p": model.top_p,
        "top_k": model.top_k,
    }
    return ModelInfo(
        name=model.name,
        model_type=_TYPES[kind] if kind else None,
        family=model.name.partition("-")[0] or None,
        context_size=limits.context_size if limits and writes else model.input_token_limit,
        max_output_tokens=limits.max_output_tokens if limits and writes else model.output_token_limit,
        input_modalities=_inputs(model.name, kind),
        output_modalities=_OUTPUTS[kind] if kind else (),
        supports_streaming=writes,
        capabilities=_capabilities(model.name, kind, thinks=bool(model.thinking)),
        details={key: value for key, value in known.items() if value not in (None, [])},
    )


def _capabilities(name: str, kind: Kind | None, *, thinks: bool) -> tuple[str, ...]:
    if kind == "embedding":
        return ("embeddings",)
    if kind != "ttt":
        return ()
    calls = () if _GEMMA.search(name) and not takes_system_text(name) else ("tools",)
    return ("chat", *calls, *(("thinking",) if thinks else ()))


def takes_system_text(name: str) -> bool:
    """Whether a model has a place for system text; Gemma has one since its version 4."""
    version = _GEMMA.search(name)
    return version is None or float(version[1].partition(".")[0] or 0) >= 4


def _inputs(name: str, kind: Kind | None) -> tuple[str, ...]:
    """What a model takes, as Google documents it; its service does not say. It refuses what it does not take."""
    if kind == "ttt":
        if "gemma" in name:
            return ("text", "document") if "-1b" in name else ("text", "image", "document")
        return _ALL
    return ("text", "image") if kind == "tti" else ("text",)


def _stand_in(models: list[RemoteModel]) -> RemoteModel | None:
    """A model that costs little and stays: a flash model that is no preview, else the first."""
    steady = [model for model in models if not _UNSTEADY.search(model.name)]
    for pattern in _PREFERRED:
        found = next((model for model in steady if pattern.search(model.name)), None)
        if found is not None:
            return found
    return next(iter(steady or models), None)
