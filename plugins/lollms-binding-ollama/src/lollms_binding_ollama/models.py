"""Which models an Ollama has and what is known of them, remembered for a while."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lollms_kernel.errors import LollmsError, ModelNotFound
from lollms_kernel.types import ModelInfo
from lollms_kernel.upstream import Memory, Upstream

from .refusals import missing

if TYPE_CHECKING:
    from ollama import AsyncClient, ListResponse, ShowResponse

    Entry = ListResponse.Model

LISTING_SECONDS = 10.0
"""How old a listing may be; a model that it lacks is looked for at once."""
DESCRIPTION_SECONDS = 3600.0
"""Descriptions belong to a digest, which never changes its meaning."""
AT_ONCE = 8
"""Descriptions that are asked for at the same time."""
MAX_LICENSE = 120


class Models:
    """The models of one Ollama, described."""

    def __init__(self, client: AsyncClient, upstream: Upstream, num_ctx: int | None) -> None:
        self._client = client
        self._upstream = upstream
        self._num_ctx = num_ctx
        self._listings: Memory[str, dict[str, Entry]] = Memory(LISTING_SECONDS)
        self._descriptions: Memory[tuple[str, str | None], ModelInfo] = Memory(DESCRIPTION_SECONDS, size=1024)
        self._asking = asyncio.Semaphore(AT_ONCE)

    async def every(self) -> list[ModelInfo]:
        """All of them; one that cannot be described is listed with what is known."""
        return list(await asyncio.gather(*map(self._listed, (await self._entries()).values())))

    async def find(self, name: str | None) -> ModelInfo:
        """One by its name, with or without `:latest`; None: the first that makes text. Raises ModelNotFound."""
        if name is None:
            return await self._first()
        entry = _match(name, await self._entries())
        if entry is None:
            self._listings.forget()
            entry = _match(name, await self._entries())
        if entry is None:
            raise missing(self._upstream.service, name)
        return await self._described(entry)

    async def first_for(self, output: str) -> str | None:
        """The name of the first model that makes this modality."""
        return next((info.name for info in await self.every() if output in info.output_modalities), None)

    async def _first(self) -> ModelInfo:
        for info in await self.every():
            if "text" in info.output_modalities:
                return info
        raise ModelNotFound(
            f"{self._upstream.service} has no model that makes text.",
            hint="`lollms ollama pull llama3.2` fetches one; `default_model` of the instance names another.",
        )

    async def _entries(self) -> dict[str, Entry]:
        async def ask() -> dict[str, Entry]:
            limit = self._upstream.limits.connect_timeout + 20
            answer = await self._upstream.ask(self._client.list, within=limit)
            return {entry.model: entry for entry in answer.models if entry.model}

        return await self._listings.recall("all", ask)

    async def _listed(self, entry: Entry) -> ModelInfo:
        try:
            return await self._described(entry)
        except LollmsError as error:
            return describe(entry, None, self._num_ctx, {"error": error.message})

    async def _described(self, entry: Entry) -> ModelInfo:
        name = str(entry.model)

        async def ask() -> ModelInfo:
            async with self._asking:
                shown = await self._upstream.ask(lambda: self._client.show(name), within=30.0)
            return describe(entry, shown, self._num_ctx)

        return await self._descriptions.recall((name, entry.digest), ask)


def _match(name: str, entries: Mapping[str, Entry]) -> Entry | None:
    """The entry of a name as Ollama reads names: `latest` may be left out, upper and lower case are the same."""
    if name in entries:
        return entries[name]
    has_tag = ":" in name.rpartition("/")[2]
    wanted = (name if has_tag else f"{name}:latest").casefold()
    return next((entry for known, entry in entries.items() if known.casefold() == wanted), None)


def describe(
    entry: Entry, shown: ShowResponse | None, num_ctx: int | None, more: Mapping[str, Any] | None = None
) -> ModelInfo:
    """What listing and description say of a model."""
    facts = dict((shown.modelinfo if shown else None) or {})
    details = (shown.details if shown else None) or entry.details
    architecture = facts.get("general.architecture")
    capabilities = _capabilities(shown, facts, tuple((details and details.families) or ()))
    parameters = _parameters(shown)
    longest = _integer(facts.get(f"{architecture}.context_length"))
    sizes = [size for size in (num_ctx or _integer(parameters.get("num_ctx")) or longest, longest) if size]
    embedding = "embedding" in capabilities and "completion" not in capabilities
    known = {
        "digest": entry.digest,
        "capabilities": list(capabilities),
        "context_length": longest,
        "num_ctx": num_ctx or _integer(parameters.get("num_ctx")),
        "embedding_length": _integer(facts.get(f"{architecture}.embedding_length")),
        "parameter_count": _integer(facts.get("general.parameter_count")),
        **(more or {}),
    }
    return ModelInfo(
        name=str(entry.model),
        model_type="generic" if embedding else "ttt",
        size=None if entry.size is None else int(entry.size),
        modified_at=entry.modified_at.isoformat() if entry.modified_at else None,
        quantization_level=(details and details.quantization_level) or None,
        format=(details and details.format) or None,
        family=(details and details.family) or None,
        families=tuple((details and details.families) or ()) or None,
        parameter_size=(details and details.parameter_size) or None,
        context_size=min(sizes) if sizes else None,
        max_output_tokens=_integer(parameters.get("num_predict")),
        template=(shown.template if shown else None) or None,
        license=_first_line(shown.license if shown else None),
        input_modalities=("text", "image") if "vision" in capabilities else ("text",),
        output_modalities=("embedding",) if embedding else ("text",),
        capabilities=() if shown is None else _known_as(capabilities, shown.template or ""),
        details={key: value for key, value in known.items() if value is not None},
    )


def _capabilities(
    shown: ShowResponse | None, facts: Mapping[str, Any], families: tuple[str, ...]
) -> tuple[str, ...]:
    """What `show` lists; versions before 0.6.4 list nothing, and then the parts of the model tell."""
    if shown is not None and shown.capabilities:
        return tuple(shown.capabilities)
    if "pooling_type" in {key.rpartition(".")[2] for key in facts}:
        return ("embedding",)
    sees = any(".vision." in key for key in facts) or {"clip", "mllama"} & set(families)
    return ("completion", "vision") if sees else ("completion",)


_NAMES = {"tools": "tools", "thinking": "thinking", "insert": "infill", "embedding": "embeddings"}
_BARE_TEMPLATE = re.compile(r"\s*(\{\{-?\s*\.Prompt\s*-?\}\})?\s*")


def _known_as(capabilities: tuple[str, ...], template: str) -> tuple[str, ...]:
    """The capabilities under their names here. A template of the prompt alone makes turns one text without speakers."""
    bare = bool(template) and _BARE_TEMPLATE.fullmatch(template) is not None
    found = [_NAMES[name] for name in capabilities if name in _NAMES]
    if ".Tools" in template and "tools" not in found:
        found.append("tools")  # versions that list no capabilities
    first = () if "completion" not in capabilities else ("completion",) if bare else ("chat",)
    return (*first, *found)


def _parameters(shown: ShowResponse | None) -> dict[str, str]:
    """The parameters of the Modelfile: a name and a value on each line."""
    lines = (line.split(None, 1) for line in ((shown and shown.parameters) or "").splitlines())
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


def _integer(value: Any) -> int | None:
    """A positive integer, also as text."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 else None


def _first_line(text: str | None) -> str | None:
    """The name of a licence, whose whole text would swell every listing."""
    line = next((line.strip() for line in (text or "").splitlines() if line.strip()), None)
    return line[:MAX_LICENSE] if line else None
