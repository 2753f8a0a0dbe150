"""What there is: bindings, functions, models and defaults."""

from __future__ import annotations

import asyncio
import importlib.metadata
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, SkipValidation

from ..config.schema import MODEL_FOLDERS
from ..contracts import Binding, InstanceStatus, Kernel
from ..errors import LollmsError
from ..types import ModelInfo
from .wire import (
    BindingTypeInfo,
    ContextLengthAnswer,
    Defaults,
    GetDefaultBindingsAnswer,
    HealthAnswer,
    ListActiveBindingsAnswer,
    ListAvailableModelsAnswer,
    ListBindingsAnswer,
    ListFunctionsAnswer,
    ListModelsAnswer,
    ModelEntry,
    ModelInfoAnswer,
)

TheKernel = NamedDependency[SkipValidation[Kernel]]

_DETAILS = ("format", "family", "families", "parameter_size", "quantization_level")


def server_version() -> str:
    """The version of the installed distribution, "N/A" if it runs without being installed."""
    try:
        return importlib.metadata.version("lollms-kernel")
    except importlib.metadata.PackageNotFoundError:
        return "N/A"


@get("/api/v1/health", summary="Tell that the server answers", security=[{}], tags=["Server"])
async def api_health(kernel: TheKernel) -> HealthAnswer:
    """Needs no API key, and tells whether the rest needs one."""
    return HealthAnswer("ok", server_version(), bool(kernel.config.security.allowed_api_keys))


@get(
    "/health",
    summary="Tell that the server answers, and what each protocol adds to it",
    security=[{}],
    tags=["Server"],
    responses={200: ResponseSpec(HealthAnswer, generate_examples=False)},
)
async def health(kernel: TheKernel, request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    """As `/api/v1/health`; protocols of other servers that know this page add what their clients look for."""
    query = dict(request.query_params)
    told = [await transport.health(query) for transport in request.app.state.transports]
    own = HealthAnswer("ok", server_version(), bool(kernel.config.security.allowed_api_keys))
    facts = msgspec.to_builtins(own)
    for health in told:
        facts |= health.facts
    return Response(facts, status_code=max((health.status for health in told), default=200))


@get("/list_bindings", summary="List binding types and configured instances", tags=["Listings"])
async def list_bindings(kernel: TheKernel) -> ListBindingsAnswer:
    """All of them, working or not; secrets are left out."""
    types = {name: _type_info(name, kind) for name, kind in sorted(kernel.binding_types.items())}
    return ListBindingsAnswer(types, {status.name: _instance(status) for status in kernel.instances()})


@get("/list_active_bindings", summary="List the instances that serve", tags=["Listings"])
async def list_active_bindings(kernel: TheKernel) -> ListActiveBindingsAnswer:
    """Instances that are configured and started; secrets are left out."""
    ready = (status for status in kernel.instances() if status.state == "ready")
    return ListActiveBindingsAnswer({status.name: _instance(status) for status in ready})


@get("/list_functions", summary="List functions", tags=["Listings"])
async def list_functions(kernel: TheKernel) -> ListFunctionsAnswer:
    """Names as `file.function`."""
    return ListFunctionsAnswer(sorted(kernel.functions))


@get("/list_models", summary="List what lies in the models folder", tags=["Models"])
async def list_models(kernel: TheKernel) -> ListModelsAnswer:
    """Files and folders, whether a binding can use them or not."""
    folder = kernel.root / kernel.config.paths.models_folder
    return ListModelsAnswer(await asyncio.to_thread(_scan, folder))


@get("/get_default_bindings", summary="Tell the default bindings and sizes", tags=["Listings"])
async def get_default_bindings(kernel: TheKernel) -> GetDefaultBindingsAnswer:
    """The instance that serves each kind of generation when a request names none; null where there is none."""
    own = kernel.config.defaults
    kinds = ("ttt", "tti", "tts", "stt", "ttv", "ttm")
    return GetDefaultBindingsAnswer(
        Defaults(
            **{f"{kind}_binding": kernel.default_binding(kind) for kind in kinds},
            default_context_size=own.default_context_size,
            default_max_output_tokens=own.default_max_output_tokens,
        )
    )


@get(
    "/get_default_ttt_context_length",
    summary="Tell the default text model's context length",
    deprecated=True,
    tags=["Models"],
)
async def get_default_ttt_context_length(kernel: TheKernel) -> ContextLengthAnswer:
    """For old clients; `get_model_info` tells more."""
    name = kernel.default_binding("ttt")
    fallback = kernel.config.defaults.default_context_size
    if name is None:
        return ContextLengthAnswer(fallback)
    try:
        info = await kernel.binding(name).get_model_info()
    except LollmsError:
        return ContextLengthAnswer(fallback)  # the configured size is what the binding would use too
    return ContextLengthAnswer(info.context_size or fallback)


@get(
    "/list_available_models/{binding_instance_name:str}",
    summary="List the models that an instance can use",
    tags=["Models"],
)
async def list_available_models(
    kernel: TheKernel, binding_instance_name: FromPath[str]
) -> ListAvailableModelsAnswer:
    """As the engine or service behind it knows them."""
    models = await kernel.binding(binding_instance_name).list_models()
    entries = [msgspec.convert(info, ModelEntry, from_attributes=True) for info in models]
    return ListAvailableModelsAnswer(binding_instance_name, entries)


@get(
    "/get_model_info/{binding_instance_name:str}",
    summary="Tell what is known of a model",
    tags=["Models"],
)
async def get_model_info(
    kernel: TheKernel, binding_instance_name: FromPath[str], model_name: FromQuery[str | None] = None
) -> ModelInfoAnswer:
    """Of `model_name`, or else of the instance's own model."""
    info = await kernel.binding(binding_instance_name).get_model_info(model_name or None)
    return _model_info(binding_instance_name, info, kernel.config.defaults.default_context_size)


def _type_info(name: str, kind: type[Binding]) -> BindingTypeInfo:
    card = BindingTypeInfo(type_name=name, **msgspec.structs.asdict(kind.card))
    reason = kind.unavailable_reason()
    if reason is None:
        return card
    return msgspec.structs.replace(card, available=False, error=reason.message, hint=reason.hint)


def _instance(status: InstanceStatus) -> dict[str, Any]:
    entry = {"type": status.type, "binding_instance_name": status.name, **status.settings}
    if status.state != "ready":
        entry |= {"state": status.state, "error": status.error, "hint": status.hint}
    return entry


def _model_info(binding: str, info: ModelInfo, default_context_size: int) -> ModelInfoAnswer:
    details = {name: getattr(info, name) for name in _DETAILS if getattr(info, name) is not None}
    context_size = info.context_size
    if context_size is None and info.model_type in (None, "ttt", "vlm", "generic"):
        # clients cut their history to this number, so it must be one
        context_size = default_context_size
        details["context_size_source"] = "defaults.default_context_size"
    return ModelInfoAnswer(
        binding_instance_name=binding,
        model_name=info.name,
        model_type=info.model_type,
        context_size=context_size,
        max_output_tokens=info.max_output_tokens,
        supports_vision=info.supports_vision,
        supports_audio=info.supports_audio,
        supports_streaming=info.supports_streaming,
        details={**details, **info.details},
    )


def _scan(models_folder: Path) -> dict[str, list[str]]:
    """Names in each subfolder, sorted, without hidden ones. Raises LollmsError where a folder cannot be read."""
    found: dict[str, list[str]] = {}
    for name in MODEL_FOLDERS:
        try:
            entries = [entry.name for entry in (models_folder / name).iterdir()]
        except FileNotFoundError:
            entries = []
        except OSError as error:
            raise LollmsError(
                f"The subfolder '{name}' of paths.models_folder cannot be read: {error.strerror}.",
                hint="Make it a folder that the server's user may read.",
            ) from error
        found[name] = sorted(entry for entry in entries if not entry.startswith("."))
    return found
