"""The kernel in this process: it owns plugins, bindings, queue and running requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import msgspec

from .access import Access, KeyHolder, check_caller_binding, revoked_error
from .admission import FairQueue
from .config.decode import convert
from .config.load import LoadedConfig
from .config.schema import MainConfig, SecurityConfig
from .contracts import (
    Binding,
    Function,
    GpuStrategy,
    InstanceStatus,
    Listener,
    Personality,
    PersonalityCard,
    Register,
    Transport,
)
from .downloads import Downloads, downloads_of
from .engine_figures import EngineFigures
from .errors import (
    Cancelled,
    ConfigError,
    NoBindingConfigured,
    NotSupported,
    ShuttingDown,
)
from .instance import Instance
from .instances import InstanceChanges, Instances
from .personalities import Personalities
from .pipeline import OUTPUT_OF, RunningStream
from .plugins import PluginSet
from .types import Event, GenerateRequest

logger = logging.getLogger(__name__)

_PLAIN = Personality(PersonalityCard(id="", name=""))
_FALLBACK_DEFAULTS = {"i2i": ("tti",), "audio2audio": ("tts", "stt")}

LIVE_SECTIONS = ("bindings_map", "defaults", "security")
"""What `LocalKernel.reload` takes over while requests run; the rest of a configuration counts at the next start."""

RETIRE_GRACE = 300.0
"""Seconds that answers get to end on an instance that was changed or removed."""


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What another configuration has changed in a running kernel."""

    instances: InstanceChanges
    needs_restart: tuple[str, ...] = ()
    """Keys that differ from what is running and count at the next start."""


class Serving(msgspec.Struct, frozen=True):
    """What serves a kernel, for those who only have the kernel."""

    listen: Callable[[Listener], AbstractAsyncContextManager[str]]
    stop: Callable[[bool], None]


class LocalKernel:
    """Use it as an async context manager: inside, bindings are open and `stream` answers requests."""

    def __init__(self, loaded: LoadedConfig, plugins: PluginSet) -> None:
        self.loaded = loaded
        self.config: MainConfig = loaded.resolved_main()
        self.root: Path = loaded.root
        self.plugins = plugins
        self.access = Access(loaded.main.security)
        self._binding_types: dict[str, type[Binding]] = {}
        self._personalities = Personalities(self.config.personalities_config or {})
        self._functions: dict[str, Function] = {}
        self._transport_types: dict[str, type[Transport]] = {}
        self._streams: set[RunningStream] = set()
        self._draining = False
        self._reloading = asyncio.Lock()
        self._lifespan = AsyncExitStack()
        self._register()
        self._instances = Instances(loaded, self._binding_types, self.observe)
        self._instances.build()
        limits = self.config.resource_manager
        self.admission = FairQueue(
            running=limits.max_running, waiting=limits.max_waiting, timeout=limits.queue_timeout
        )
        self.engine_figures = EngineFigures(self.observe)
        self.gpu = self._strategies[limits.gpu_strategy](limits.gpu_limit, limits.queue_timeout)
        self._downloads = downloads_of(self.config, loaded.path("models_folder"))
        self.serving: Serving | None = None
        """Set by the server while it serves this kernel."""

    # --- lifetime ---

    async def __aenter__(self) -> LocalKernel:
        await self._lifespan.__aenter__()
        try:
            self._lifespan.push_async_callback(self._downloads.close)
            self._lifespan.push_async_callback(self._instances.close)
            await self._instances.open()
            self.engine_figures.open()
            self._lifespan.push_async_callback(self.engine_figures.close)
            for function in self._functions.values():
                self._lifespan.push_async_callback(function.close)
            await self._personalities.open(self, self._lifespan)
            for name, context in self.plugins.call_each("lifespan", {"kernel": self}):
                if context is not None:
                    logger.debug("entering the lifespan of %s", name)
                    await self._lifespan.enter_async_context(context)
        except BaseException:
            await self._lifespan.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain(0)
        await self._lifespan.aclose()

    async def drain(self, grace: float) -> None:
        """Take no new request; let the running ones end within `grace` seconds, then end them with ShuttingDown."""
        self._draining = True
        await self._all_ended(grace)
        for stream in list(self._streams):
            stream.interrupt.trip(ShuttingDown("The server is stopping.", hint="Try again when it is back."))
        await self._all_ended(grace + 1.0)

    async def _all_ended(self, timeout: float) -> None:
        ended = [asyncio.ensure_future(stream.ended.wait()) for stream in self._streams]
        if ended:
            _, late = await asyncio.wait(ended, timeout=timeout)
            for waiter in late:
                waiter.cancel()

    async def reload(self, loaded: LoadedConfig, grace: float = RETIRE_GRACE) -> Reloaded:
        """Take another configuration while requests run; see `LIVE_SECTIONS` and `Instances.update`.

        All or nothing: raises what is wrong with it, and then everything is as before.
        """
        async with self._reloading:
            live = {name: getattr(loaded.main, name) for name in LIVE_SECTIONS}
            main = msgspec.structs.replace(self.loaded.main, **live)
            merged = msgspec.structs.replace(loaded, main=main)
            changes = await self._instances.update(merged, grace)
            self.loaded, self.config = merged, msgspec.structs.replace(self.config, **live)
            self.use_keys(main.security)
        reloaded = Reloaded(instances=changes, needs_restart=tuple(_waiting(merged.main, loaded.main)))
        self._tell_reloaded(reloaded)
        return reloaded

    def use_keys(self, security: SecurityConfig) -> None:
        """Let these API keys count from now on; answers under way whose key is gone are ended."""
        if security.allowed_api_keys != self.config.security.allowed_api_keys:
            logger.info("API keys have changed: %d count now", len(security.allowed_api_keys))
        self.config = msgspec.structs.replace(self.config, security=security)
        self.access.replace(security)
        for stream in list(self._streams):
            if stream.request.tenant in self.access.revoked:
                stream.interrupt.trip(revoked_error())

    async def add_instance(self, name: str, settings: Mapping[str, Any]) -> InstanceStatus:
        """See `contracts.Kernel.add_instance`."""
        async with self._reloading:
            instance = await self._instances.add(name, settings)
        self.observe(Event("instance_added", {"instance": name, "type": instance.type_name}))
        return instance.status()

    async def remove_instance(self, name: str, grace: float = 0.0) -> None:
        """See `contracts.Kernel.remove_instance`."""
        async with self._reloading:
            await self._instances.remove(name, grace)
        self.observe(Event("instance_removed", {"instance": name}))

    def listen(self, listener: Listener) -> AbstractAsyncContextManager[str]:
        """See `contracts.Kernel.listen`."""
        if self.serving is None:
            raise NotSupported("No server serves this kernel, so it has no ports.")
        return self.serving.listen(listener)

    def stop(self, *, now: bool = False) -> None:
        """See `contracts.Kernel.stop`."""
        if self.serving is not None:
            self.serving.stop(now)

    def _tell_reloaded(self, reloaded: Reloaded) -> None:
        facts = msgspec.to_builtins(reloaded.instances)
        del facts["untouched"]
        self.observe(Event("reloaded", {**facts, "needs_restart": reloaded.needs_restart}))

    # --- requests ---

    def stream(self, request: GenerateRequest) -> RunningStream:
        """See `contracts.Kernel.stream`."""
        if self._draining:
            raise ShuttingDown("The server is stopping.", hint="Try again when it is back.", retry_after=5)
        own = sum(stream.request.tenant == request.tenant for stream in self._streams)
        self.access.check_stream(request.tenant, own)
        stream = RunningStream(self, request, self.admission, self.gpu)
        self._streams.add(stream)
        return stream

    def forget(self, stream: RunningStream) -> None:
        """A stream has ended."""
        self._streams.discard(stream)

    def caller(self, key: str) -> KeyHolder:
        """See `contracts.Kernel.caller`."""
        return KeyHolder(self.access.authenticate(key), self.access)

    def cancel(self, request_id: str, tenant: str | None = None) -> bool:
        """See `contracts.Kernel.cancel`."""
        hit = False
        for stream in list(self._streams):
            request = stream.request
            if request.id == request_id and tenant in (None, request.tenant):
                stream.interrupt.trip(Cancelled("The request was cancelled."))
                hit = True
        return hit

    def choose_instance(self, request: GenerateRequest) -> Instance:
        """The instance that shall serve the request. Raises BindingNotFound or NoBindingConfigured."""
        name = request.binding
        if name is None:
            listing = {status.name: status for status in self.instances()}
            name = self.plugins.manager.hook.select_binding(
                request=request, bindings=MappingProxyType(listing)
            )
        if name is None:
            name = self.default_binding(request.generation_type)
        if name is None:
            raise NoBindingConfigured(
                "Could not determine binding instance for the request. Check defaults or request parameters.",
                hint=self._cure_for(request.generation_type),
            )
        instance = self._instances.get(name)
        self.access.check_binding(request.tenant, name)
        return instance

    # --- what there is ---

    @property
    def binding_types(self) -> Mapping[str, type[Binding]]:
        """See `contracts.Kernel.binding_types`."""
        return MappingProxyType(self._binding_types)

    @property
    def downloads(self) -> Downloads:
        """See `contracts.Kernel.downloads`."""
        return self._downloads

    @property
    def personalities(self) -> Mapping[str, Personality]:
        """See `contracts.Kernel.personalities`."""
        return self._personalities.current

    @property
    def functions(self) -> Mapping[str, Function]:
        """See `contracts.Kernel.functions`."""
        return MappingProxyType(self._functions)

    @property
    def transport_types(self) -> Mapping[str, type[Transport]]:
        """Name to class of every installed protocol."""
        return MappingProxyType(self._transport_types)

    def instances(self) -> list[InstanceStatus]:
        """See `contracts.Kernel.instances`."""
        return [instance.status() for instance in self._instances]

    def instance(self, name: str) -> Instance:
        """A configured instance, whatever its state. Raises BindingNotFound."""
        return self._instances.get(name)

    def binding(self, name: str) -> Binding:
        """See `contracts.Kernel.binding`."""
        instance = self._instances.get(name)
        check_caller_binding(name)
        return instance.ready()

    def default_binding(self, generation_type: str) -> str | None:
        """See `contracts.Kernel.default_binding`."""
        for kind in (generation_type, *_FALLBACK_DEFAULTS.get(generation_type, ())):
            configured: str | None = getattr(self.config.defaults, f"{kind}_binding", None)
            if configured is not None:
                return configured
        if self._instances.builtin:
            return next((i.name for i in self._instances if self._makes(i.type_name, generation_type)), None)
        return None

    def _makes(self, type_name: str, generation_type: str) -> bool:
        """Whether a binding type is made for this kind of generation: the first modality of its card."""
        kind = self._binding_types.get(type_name)
        return (
            kind is not None and OUTPUT_OF.get(generation_type) in kind.card.supported_output_modalities[:1]
        )

    def _cure_for(self, generation_type: str) -> str:
        """How to get an answer where nothing is configured for this kind of generation."""
        cure = f"Set defaults.{generation_type}_binding in the main configuration or name a binding."
        if self._instances.builtin:
            for name, kind in self._binding_types.items():
                missing = kind.unavailable_reason() if self._makes(name, generation_type) else None
                if missing is not None and missing.hint is not None:
                    return f"{cure} For {name}: {missing.hint}"
        return cure

    def find_personality(self, name: str) -> Personality:
        """See `contracts.Kernel.find_personality`."""
        return self._personalities.find(name)

    def unusable_personalities(self) -> dict[str, str]:
        """Id to what is wrong, of the personalities that cannot be used."""
        return self._personalities.unusable()

    def check_personality_folder(self, folder: Path) -> list[str] | None:
        """Everything that is wrong with a personality's folder, wherever it lies; None where there is none in it."""
        return self._personalities.check(folder)

    def choose_personality(self, request: GenerateRequest) -> Personality:
        """The personality of a request, or one that adds nothing when none is named. Raises Forbidden."""
        personality = self.find_personality(request.personality) if request.personality else _PLAIN
        self.access.check_personality(request.tenant, personality.card)
        return personality

    def observe(self, event: Event) -> None:
        """Tell the log and every `observe` hook."""
        level = logging.DEBUG if event.name in ("started", "engine") else logging.INFO
        logger.log(level, event.name, extra={"facts": event.data})
        for _ in self.plugins.call_each("observe", {"event": event}):
            pass

    # --- registration ---

    def _register(self) -> None:
        self._strategies: dict[str, type[GpuStrategy]] = {}
        config = {"config": self.config}
        self._collect("register_bindings", lambda cls: self._binding_types.update({cls.type_name: cls}))
        self._collect("register_gpu_strategies", lambda cls: self._strategies.update({cls.name: cls}))
        self._collect("register_transports", lambda cls: self._transport_types.update({cls.name: cls}))
        self._collect("register_personalities", self._personalities.add, config)
        self._collect("register_functions", self._add_function, config)
        strategy = self.config.resource_manager.gpu_strategy
        if strategy not in self._strategies:
            raise ConfigError(
                f"resource_manager.gpu_strategy is '{strategy}', which no plugin provides.",
                hint=f"Use one of: {', '.join(sorted(self._strategies))}.",
            )

    def _collect(self, hook: str, register: Register, extra: Mapping[str, Any] | None = None) -> None:
        for _ in self.plugins.call_each(hook, {"register": register, **(extra or {})}):
            pass

    def _add_function(self, function: Function) -> None:
        overrides = self.config.functions_config or {}
        override = overrides.get(function.name) or overrides.get(function.name.partition(".")[0])
        if override is None or override.enabled:
            self._functions[function.name] = function

    def build_transports(self) -> list[Transport]:
        """One object of every enabled protocol; its configuration section is checked here."""
        sections = self.config.transports
        for name in sections.keys() - self._transport_types.keys():
            logger.warning(
                "transports.%s: no installed plugin provides this protocol; the section is not used", name
            )
        transports = []
        for name, kind in self._transport_types.items():
            raw = sections.get(name) or {}
            settings = convert(raw, kind.Settings, where=f"transports.{name}")
            if settings.enabled:
                transports.append(kind(self, settings))
        return transports


def _waiting(running: MainConfig, wanted: MainConfig) -> Iterator[str]:
    """Keys, with their section, that differ between two configurations."""
    for section in running.__struct_fields__:
        one, other = getattr(running, section), getattr(wanted, section)
        if one == other:
            continue
        if isinstance(one, msgspec.Struct):
            yield from (
                f"{section}.{key}"
                for key in one.__struct_fields__
                if getattr(one, key) != getattr(other, key)
            )
        else:
            yield section
