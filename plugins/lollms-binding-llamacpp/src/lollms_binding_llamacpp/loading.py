"""Brings a model file into memory with everything that answers need: engine, chat template, notices."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lollms_kernel.errors import ConfigError, UnsupportedInput
from lollms_kernel.types import Notice

from .chat_template import CHATML, ChatTemplate
from .embedder import Embedder, EmbedderOptions
from .engine import Engine, EngineSpec
from .extra_buffers import Verdict
from .gguf_header import GgufHeader
from .library import ModelFile, context_size, pooling_of
from .native import supports_gpu
from .prompt import PromptMaker
from .settings import DEFAULT_N_CTX, LlamaCppSettings
from .threads import automatic_threads

if TYPE_CHECKING:
    from .media import MediaReader

logger = logging.getLogger(__name__)


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can answer."""

    file: ModelFile
    header: GgufHeader
    engine: Engine
    prompts: PromptMaker
    notices: tuple[Notice, ...]
    """What every answer has to mention, because somebody wanted it otherwise."""
    has_template: bool
    embedder: Embedder
    media: MediaReader | None = None

    def eyes(self) -> MediaReader:
        """What reads pictures and sounds. Raises UnsupportedInput where there is none."""
        if self.media is None:
            raise UnsupportedInput(
                f"'{self.file.name}' takes text only.",
                hint="Set `mmproj` in the instance file to its projector.",
            )
        return self.media

    async def close(self) -> None:
        """Stop what runs and give all memory back."""
        await self.embedder.close()
        await self.engine.close()


async def load_model(
    file: ModelFile, header: GgufHeader, settings: LlamaCppSettings, root: Path, verdict: Verdict
) -> LoadedModel:
    """Load `file`. Raises ModelLoadFailed, or ConfigError for a chat template that cannot be read."""
    source = _template_of(settings, root) or header.text("tokenizer.chat_template")
    engine = await Engine.load(_spec(file, header, settings, root, verdict))
    try:
        vocabulary = engine.vocabulary
        template = ChatTemplate(
            source or CHATML, vocabulary.text(vocabulary.bos), vocabulary.text(vocabulary.eos)
        )
        media = await _media(engine, settings, root)
    except BaseException:
        await engine.close()
        raise
    notices = tuple(_notices(file, engine, settings, verdict))
    for notice in notices:
        logger.warning("%s", notice.message)
    trained = header.own("context_length") or engine.n_ctx
    options = EmbedderOptions(
        ubatch_size=min(settings.ubatch_size, trained),
        pooling=pooling_of(header, settings) or "mean",
        threads=engine.spec.threads_batch,
    )
    return LoadedModel(
        file=file,
        header=header,
        engine=engine,
        prompts=PromptMaker(vocabulary, template, engine.n_ctx, trained, file.name),
        notices=notices,
        has_template=source is not None,
        embedder=Embedder(engine.model, options),
        media=media,
    )


async def _media(engine: Engine, settings: LlamaCppSettings, root: Path) -> MediaReader | None:
    if settings.mmproj is None or not engine.generates:
        return None
    from .media import open_media

    return await open_media(engine, root / settings.mmproj)


def _spec(
    file: ModelFile, header: GgufHeader, settings: LlamaCppSettings, root: Path, verdict: Verdict
) -> EngineSpec:
    threads = settings.threads or automatic_threads(file.size)
    return EngineSpec(
        name=file.name,
        path=file.path,
        n_ctx=context_size(header, settings) or 0,
        n_gpu_layers=settings.n_gpu_layers,
        batch_size=settings.batch_size,
        ubatch_size=settings.ubatch_size,
        parallel=settings.parallel,
        kv_unified=settings.kv_unified,
        cache_ram=settings.cache_ram,
        context_shift=settings.context_shift,
        draft_max=settings.draft_max,
        lora=tuple((root / entry.path, entry.scale) for entry in settings.lora),
        threads=threads,
        threads_batch=settings.threads_batch or threads,
        tensor_split=settings.tensor_split,
        cache_type=settings.cache_type,
        rope_freq_base=settings.rope_freq_base,
        compress_pos_emb=settings.compress_pos_emb,
        extra_buffers=verdict.use,
        verbose=settings.verbose,
    )


def _template_of(settings: LlamaCppSettings, root: Path) -> str | None:
    name, given = "chat_template", settings.chat_template
    if given is None:
        name, given = "chat_template_file", settings.chat_template_file
    if given is None or (name == "chat_template" and "{" in given):
        return given
    try:
        return (root / given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Instance '{settings.binding_instance_name}': {name} names a file that cannot be read: {error}",
            hint="Give the path of a Jinja template (relative to the folder above the configuration), or its text.",
        ) from error


def _notices(file: ModelFile, engine: Engine, settings: LlamaCppSettings, verdict: Verdict) -> list[Notice]:
    notices = []
    if engine.n_ctx < settings.n_ctx != DEFAULT_N_CTX:  # nobody asked for the default
        message = f"'{file.name}' has a context of {engine.n_ctx} tokens, less than n_ctx = {settings.n_ctx}."
        notices.append(Notice("context_capped", message, {"n_ctx": engine.n_ctx, "wanted": settings.n_ctx}))
    if settings.n_gpu_layers > 0 and not supports_gpu():
        message = f"'{file.name}' runs on the CPU: this build of llama.cpp can use no GPU here."
        notices.append(Notice("cpu_fallback", message, {"n_gpu_layers": settings.n_gpu_layers}))
    if not verdict.use and settings.use_extra_bufts is None:
        message = f"'{file.name}' runs without llama.cpp's extra buffers, more slowly. {verdict.reason}"
        notices.append(Notice("extra_buffers_off", message))
    return notices
