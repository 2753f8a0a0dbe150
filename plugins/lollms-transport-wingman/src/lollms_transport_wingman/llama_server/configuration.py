"""From the flags to a configuration that no file holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from lollms_kernel.config.load import LoadedConfig
from lollms_kernel.config.schema import (
    DefaultsConfig,
    LoggingConfig,
    MainConfig,
    PathsConfig,
    ResourceManagerConfig,
    SecurityConfig,
    ServerConfig,
)
from lollms_kernel.errors import ConfigError, LollmsError
from lollms_kernel.parameters import ENDLESS

from ..inference.fields import Fields
from ..inference.sampling import read_sampling
from ..settings import WingmanSettings

INSTANCE = "llama"
NOWHERE = ".lollms-llama-server"
"""A folder that does not exist: nothing but the model of the command line is offered."""
DAY = 86_400
SHUTDOWN_GRACE = 0.2
"""Seconds that answers get to end after SIGTERM: whoever stops llama-server expects it to be gone at once."""


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says; None where it says nothing."""

    model: Path
    host: str
    port: int
    alias: str | None = None
    api_key: str | None = None
    api_key_file: Path | None = None
    ctx_size: int | None = None
    parallel: int | None = None
    batch_size: int | None = None
    ubatch_size: int | None = None
    threads: int | None = None
    threads_batch: int | None = None
    n_predict: int | None = None
    n_gpu_layers: str | None = None
    embeddings: bool = False
    reranking: bool = False
    pooling: str | None = None
    metrics: bool = False
    slots: bool = True
    props: bool = False
    slot_save_path: Path | None = None
    context_shift: bool = False
    kv_unified: bool | None = None
    cache_reuse: int | None = None
    cache_ram: int | None = None
    jinja: bool = True
    chat_template: str | None = None
    chat_template_file: Path | None = None
    temperature: float | None = None
    seed: int | None = None
    sampling: dict[str, Any] = {}
    """Other parameters that requests get unless they say otherwise."""
    lora: tuple[Path, ...] = ()
    lora_scaled: tuple[str, ...] = ()
    lora_init_without_apply: bool = False
    mmproj: Path | None = None
    cors_origins: str = "*"
    reasoning_format: str | None = None
    no_repack: bool = False
    sse_ping_interval: float | None = None
    verbose: bool = False


def configuration(flags: Flags) -> LoadedConfig:
    """The whole configuration. Raises ConfigError where a file that the flags name is not there."""
    keys = api_keys(flags)
    main = MainConfig(
        server=ServerConfig(
            host=flags.host,
            shutdown_grace=SHUTDOWN_GRACE,
            allow_insecure_bind=not keys,
            max_body_size=512 << 20,
        ),
        paths=PathsConfig(models_folder=NOWHERE),
        security=SecurityConfig(allowed_api_keys=keys),
        defaults=DefaultsConfig(ttt_binding=INSTANCE),
        bindings_map={INSTANCE: "llamacpp_binding"},
        resource_manager=ResourceManagerConfig(
            gpu_strategy="none", queue_timeout=DAY, max_running=4096, max_waiting=4096
        ),
        logging=LoggingConfig(log_level="DEBUG" if flags.verbose else "INFO"),
        transports={"rest": {"enabled": False}},
    )
    root = Path(os.getcwd())
    return LoadedConfig(
        main=main,
        config_dir=root / NOWHERE,
        root=root,
        file=None,
        inline_instances={INSTANCE: instance_settings(flags)},
    )


def transport_settings(flags: Flags) -> WingmanSettings:
    """How the port answers."""
    ping = flags.sse_ping_interval
    settings = WingmanSettings(
        inference_port=flags.port,
        control_port=None,
        binding=INSTANCE,
        alias=flags.alias or flags.model.name,
        cors_origins=tuple(origin.strip() for origin in flags.cors_origins.split(",") if origin.strip()),
        slots=flags.slots,
        metrics=flags.metrics,
        change_props=flags.props,
    )
    if ping is None:
        return settings
    return msgspec.structs.replace(settings, ping_interval=ping if ping > 0 else 3600.0)


def instance_settings(flags: Flags) -> dict[str, Any]:
    """The settings of the llama.cpp instance."""
    settings: dict[str, Any] = {
        "model_path": str(_existing(flags.model, "--model")),
        "n_ctx": 0 if flags.ctx_size is None else flags.ctx_size,
        "context_shift": flags.context_shift,
        "embeddings": flags.embeddings,
        "reranking": flags.reranking,
        "verbose": flags.verbose,
    }
    told: dict[str, Any] = {
        "parallel": _positive(flags.parallel),
        "batch_size": flags.batch_size,
        "ubatch_size": flags.ubatch_size,
        "threads": _positive(flags.threads),
        "threads_batch": _positive(flags.threads_batch),
        "n_gpu_layers": _layers(flags.n_gpu_layers),
        "pooling": flags.pooling,
        "kv_unified": flags.kv_unified,
        "cache_ram": flags.cache_ram,
        "chat_template": flags.chat_template,
        "reasoning_format": flags.reasoning_format,
        "use_extra_bufts": False if flags.no_repack else None,
    }
    for name, file in (
        ("mmproj", flags.mmproj),
        ("chat_template_file", flags.chat_template_file),
    ):
        if file is not None:
            told[name] = str(_existing(file, f"--{name.replace('_', '-')}"))
    if flags.slot_save_path is not None:
        told["slot_save_path"] = str(flags.slot_save_path.absolute())
    adapters = _adapters(flags)
    if adapters:
        told["lora"] = adapters
    defaults = {
        **sampling_defaults(flags),
        "temperature": flags.temperature,
        "seed": flags.seed,
        "max_tokens": _positive(flags.n_predict) or ENDLESS,
        "n_cache_reuse": flags.cache_reuse,
    }
    told["default_parameters"] = {name: value for name, value in defaults.items() if value is not None}
    return {**settings, **{name: value for name, value in told.items() if value is not None}}


def sampling_defaults(flags: Flags) -> dict[str, Any]:
    """Parameters of requests, checked as those of a request are. Raises ConfigError."""
    given = dict(flags.sampling)
    for name in ("grammar", "json_schema"):
        file = given.pop(f"{name}_file", None)
        if file is not None:
            given[name] = _existing(file, f"--{name.replace('_', '-')}-file").read_text("utf-8")
    letters = given.pop("sampler_letters", None)
    if letters is not None:
        given["samplers"] = letters
    elif "samplers" in given:
        given["samplers"] = given["samplers"].split(";")
    if "dry_sequence_breakers" in given:
        given["dry_sequence_breakers"] = list(given["dry_sequence_breakers"])
    try:
        return read_sampling(Fields(given)).parameters
    except LollmsError as error:
        raise ConfigError(error.message.replace("Field", "The flag for the field"), hint=error.hint) from None


def _adapters(flags: Flags) -> list[dict[str, Any]]:
    scale = 0.0 if flags.lora_init_without_apply else 1.0
    found = [{"path": str(_existing(path, "--lora")), "scale": scale} for path in flags.lora]
    for entry in flags.lora_scaled:
        path, _, number = entry.rpartition(":")
        try:
            found.append(
                {
                    "path": str(_existing(Path(path), "--lora-scaled")),
                    "scale": 0.0 if flags.lora_init_without_apply else float(number),
                }
            )
        except ValueError:
            raise ConfigError(f"--lora-scaled is '{entry}'.", hint="It must be FILE:SCALE.") from None
    return found


def _existing(path: Path, flag: str) -> Path:
    if not path.is_file():
        raise ConfigError(f"{flag}: {path} is no file.", hint="Name one that is there.")
    return path.absolute()


def _positive(number: int | None) -> int | None:
    return number if number is not None and number > 0 else None


def _layers(text: str | None) -> int | None:
    if text is None or text == "auto":
        return None
    if text == "all":
        return -1
    try:
        return max(-1, min(int(text), 2**31 - 1))
    except ValueError:
        raise ConfigError(f"--n-gpu-layers is '{text}'.", hint="It must be a number, auto or all.") from None


def api_keys(flags: Flags) -> tuple[str, ...]:
    """The keys of `--api-key` and of the file, each once."""
    keys = (flags.api_key or "").split(",")
    if flags.api_key_file is not None:
        keys += _existing(flags.api_key_file, "--api-key-file").read_text("utf-8").splitlines()
    return tuple(dict.fromkeys(key.strip() for key in keys if key.strip()))
