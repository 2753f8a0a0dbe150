"""A personality of a folder: its conditioning, or its script where that may run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lollms_kernel.contracts import Personality, PersonalityCard, PersonalityContext
from lollms_kernel.errors import ConfigError
from lollms_kernel.types import Chunk, GenerateRequest, Notice, Output

from .pictures import DEFAULT_ICON, lies_in
from .records import Record
from .scripting import FAILED, ScriptRunner
from .scripts import Script, read_source

if TYPE_CHECKING:
    from lollms_kernel.config.schema import PersonalityOverride


class FolderPersonality(Personality):
    """What `record` says of the folder, changed by the operator's `override`."""

    def __init__(
        self,
        folder: Path,
        record: Record,
        override: PersonalityOverride | None,
        runner: ScriptRunner,
        *,
        trusted: bool = False,
    ) -> None:
        assert record.card is not None, "a folder with an error is no personality"
        self.folder = folder
        self.record = record
        self._runner = runner
        self._refusal = _refusal(record.card, record.script, override, trusted)
        super().__init__(_marked(record.card, record.script, self._refusal))

    @property
    def logo(self) -> Path | None:
        """See `contracts.Personality.logo`. The file is looked for anew: it may have become a link that leads out."""
        icon = self.card.icon
        assets = self.folder / "assets"
        return assets / icon if icon != DEFAULT_ICON and lies_in(assets, icon) else None

    async def run(self, request: GenerateRequest, context: PersonalityContext) -> AsyncGenerator[Chunk, None]:
        """See `contracts.Personality.run`."""
        script = self.record.script
        if script is None or request.generation_type != "ttt":
            chunks = super().run(request, context)
        elif self._refusal is not None:
            chunks = _noticed(Notice("script_not_run", self._refusal), super().run(request, context))
        else:
            chunks = self._run_script(script, request, context)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def _run_script(
        self, script: Script, request: GenerateRequest, context: PersonalityContext
    ) -> AsyncGenerator[Chunk, None]:
        conditioned = self.condition(request)
        await _check_binding(conditioned, context)
        try:
            await asyncio.to_thread(read_source, self.folder, script.file)
        except ConfigError as error:
            text = error.message.replace(f"{self.folder}/", "")
            yield Output("error", f"{FAILED}{text}", None, {"personality": self.card.name})
            return
        chunks = self._runner.run(script, self.folder, self.card, conditioned, context)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk


async def _noticed(notice: Notice, chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    """The notice before the first chunk, once that is there: what is wrong before it must still be raised."""
    async with aclosing(chunks):
        first = await anext(chunks, None)
        yield notice
        if first is not None:
            yield first
        async for chunk in chunks:
            yield chunk


async def _check_binding(request: GenerateRequest, context: PersonalityContext) -> None:
    """Let a request for a binding or model that does not exist fail as it does without a script."""
    if request.binding is not None:
        binding = context.kernel.binding(request.binding)
        if request.model is not None:
            await binding.get_model_info(request.model)


def _refusal(
    card: PersonalityCard, script: Script | None, override: PersonalityOverride | None, trusted: bool
) -> str | None:
    """Why the script does not run; None where it does, or where there is none."""
    key = card.folder or card.id
    if script is None:
        return None
    if script.kind == "workflow":
        allowed = override.allow_scripts if override else None
        if trusted if allowed is None else allowed:
            return None
        cure = f"Read it, then set personalities_config.{key}.allow_scripts to true."
        return f"The script of '{card.id}' does not run: it works through its conditioning. {cure}"
    if script.missing:
        return (
            f"The legacy script of '{card.id}' cannot run: this server has no {', '.join(script.missing)}. "
            "It works through its conditioning."
        )
    if override is not None and override.allow_legacy_scripts:
        return None
    cure = f"Read it, then set personalities_config.{key}.allow_legacy_scripts to true."
    return f"The legacy script of '{card.id}' does not run: it works through its conditioning. {cure}"


def _marked(card: PersonalityCard, script: Script | None, refusal: str | None) -> PersonalityCard:
    if script is None:
        return card
    problems = (*card.problems, *([refusal] if refusal else []))
    return msgspec.structs.replace(card, script_enabled=refusal is None, problems=problems)
