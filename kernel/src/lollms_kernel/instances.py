"""The configured binding instances: built from their settings, opened in the background, listed whatever happens.

`Instances.update` follows a changed configuration while requests run: what the change does not concern stays the same
object in the same process, and what goes away ends its answers first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from .admission import FairQueue
from .config.decode import convert
from .config.load import LoadedConfig, instance_file, read_instance
from .config.secrets import redact
from .contracts import Binding, BindingContext
from .errors import BindingNotFound, BindingUnavailable, ConfigError, LollmsError, ShuttingDown
from .instance import Instance, Source
from .types import Event
from .workers.faults import as_lollms_error
from .workers.proxy import WorkerBinding

logger = logging.getLogger(__name__)

INLINE_OPEN_TIMEOUT = 10.0


class InstanceChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What an update did, by names."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    retried: tuple[str, ...] = ()
    """Those that could not serve before and were started again unchanged."""
    untouched: tuple[str, ...] = ()


class Instances:
    """All instances of one kernel; a broken one never keeps the others from serving."""

    def __init__(
        self, loaded: LoadedConfig, types: Mapping[str, type[Binding]], observe: Callable[[Event], None]
    ) -> None:
        self._loaded = loaded
        self._types = types
        self._observe = observe
        self._instances: dict[str, Instance] = {}
        self._added: dict[str, tuple[str, dict[str, Any]]] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._instances.values())

    @property
    def builtin(self) -> bool:
        """Whether nothing is configured, so that the plugins' own instances are there."""
        return not self._loaded.main.bindings_map

    def get(self, name: str) -> Instance:
        """The instance of this name. Raises BindingNotFound."""
        try:
            return self._instances[name]
        except KeyError:
            known = ", ".join(sorted(self._instances)) or "none"
            raise BindingNotFound(
                f"Binding instance '{name}' not found.", hint=f"Configured: {known}."
            ) from None

    def build(self) -> None:
        """Create every instance from its settings; nothing is started yet."""
        sources = self._sources(self._loaded)
        self._instances = {name: self._made(name, source) for name, source in sources.items()}

    async def open(self) -> None:
        """Start every instance; workers go on starting in the background, thin bindings get a bounded moment."""
        inline = []
        for instance in self._instances.values():
            task = self._start(instance)
            if task is not None and instance.binding is not None and instance.binding.isolation == "inline":
                inline.append(task)
        if inline:
            await asyncio.wait(inline, timeout=INLINE_OPEN_TIMEOUT)

    async def update(self, loaded: LoadedConfig, grace: float) -> InstanceChanges:
        """Become what another configuration says, all of it or nothing.

        An instance that is new or made from something else is built and opened before it takes its place; raises
        what is wrong with it, and then nothing has changed. The one that it replaces gets no new requests and is
        closed when its answers have ended, at the latest after `grace` seconds. One that could not serve before is
        started again. Calls must not overlap.
        """
        sources = await asyncio.to_thread(self._sources, loaded)
        same = {name for name, source in sources.items() if self._is_made_from(name, source)}
        kept = {name: self._instances[name] for name in same if self._instances[name].state != "failed"}
        fresh = {name: self._made(name, source) for name, source in sources.items() if name not in kept}
        await self._prove([instance for name, instance in fresh.items() if name not in same])
        if self._closed:
            await asyncio.gather(*(instance.close() for instance in fresh.values()))
            raise ShuttingDown("The server is stopping.", hint="Try again when it is back.")
        before, self._loaded = self._instances, loaded
        self._instances = {name: kept.get(name) or fresh[name] for name in sources}
        for name in same & fresh.keys():
            self._start(fresh[name])
        for name, instance in before.items():
            if name not in kept:
                self._keep(self._retiring, instance.retire(grace), f"retire {name}")
        return InstanceChanges(
            added=tuple(name for name in fresh if name not in before),
            changed=tuple(name for name in fresh if name in before and name not in same),
            removed=tuple(name for name in before if name not in sources),
            retried=tuple(name for name in fresh if name in same),
            untouched=tuple(name for name in sources if name in kept),
        )

    async def add(self, name: str, settings: Mapping[str, Any]) -> Instance:
        """One that no file holds, opened; it stays through updates. Raises ConfigError, or what keeps it from opening.

        Calls must not overlap with each other or with `update`.
        """
        if name in self._instances:
            raise ConfigError(f"There is an instance '{name}' already.", hint="Choose another name.")
        type_name = settings.get("type")
        if not isinstance(type_name, str):
            raise ConfigError(f"The settings of '{name}' name no binding type.", hint="Set `type`.")
        own = {**settings, "binding_instance_name": name}
        instance = self._made(name, self._source(self._loaded, f"instance {name}", type_name, own))
        await self._prove([instance])
        if self._closed:
            await instance.close()
            raise ShuttingDown("The server is stopping.", hint="Try again when it is back.")
        self._added[name] = (type_name, own)
        self._instances[name] = instance
        return instance

    async def remove(self, name: str, grace: float) -> None:
        """Take away one that `add` made, and wait until it is closed. Raises BindingNotFound for any other."""
        if name not in self._added:
            raise BindingNotFound(
                f"'{name}' was not added while the server runs.", hint="Remove it from the configuration."
            )
        del self._added[name]
        instance = self._instances.pop(name)
        # closed whatever becomes of the caller, and by `close` at the latest
        await asyncio.shield(self._keep(self._retiring, instance.retire(grace), f"retire {name}"))

    async def close(self) -> None:
        """Close every instance, each for at most ten seconds."""
        self._closed = True
        for task in (*self._opening, *self._retiring):
            task.cancel()
        await asyncio.gather(*self._opening, *self._retiring, return_exceptions=True)
        await asyncio.gather(*(instance.close() for instance in self._instances.values()))

    # --- what they are made from ---

    def _sources(self, loaded: LoadedConfig) -> dict[str, Source]:
        """What every instance of a configuration is made from, and those that were added while it runs."""
        found = {}
        for name, type_name, settings in self._wanted(loaded):
            where, problem, hint = f"built-in instance {name}", None, None
            if settings is None:
                try:
                    where = str(instance_file(loaded, name))
                    kind = self._types.get(type_name)
                    settings = read_instance(loaded, name, kind.Settings if kind else None)
                except LollmsError as error:
                    problem, hint = error.message, error.hint
            found[name] = self._source(loaded, where, type_name, settings, problem, hint)
        for name, (type_name, settings) in self._added.items():
            if name in found:
                raise ConfigError(
                    f"bindings_map.{name}: an instance of this name was added while the server runs.",
                    hint="Stop that one, or choose another name.",
                )
            found[name] = self._source(loaded, f"instance {name}", type_name, settings)
        return found

    @staticmethod
    def _source(
        loaded: LoadedConfig,
        where: str,
        type_name: str,
        settings: dict[str, Any] | None,
        problem: str | None = None,
        hint: str | None = None,
    ) -> Source:
        main = loaded.main
        return Source(
            type_name=type_name,
            settings=settings,
            problem=problem,
            hint=hint,
            where=where,
            context=BindingContext(
                models_folder=loaded.path("models_folder"),
                root=loaded.root,
                default_context_size=main.defaults.default_context_size,
                default_max_output_tokens=main.defaults.default_max_output_tokens,
            ),
            workers=main.workers,
            queue_timeout=main.resource_manager.queue_timeout,
        )

    def _wanted(self, loaded: LoadedConfig) -> list[tuple[str, str, dict[str, Any] | None]]:
        if loaded.main.bindings_map:
            return [(name, type_name, None) for name, type_name in loaded.main.bindings_map.items()]
        return [
            (name, kind.type_name, dict(settings))
            for kind in self._types.values()
            for name, settings in kind.builtin_instances().items()
        ]

    def _is_made_from(self, name: str, source: Source) -> bool:
        return name in self._instances and self._instances[name].source == source

    # --- making and starting ---

    def _made(self, name: str, source: Source) -> Instance:
        """An instance with its binding, not open; or a failed one that knows why."""
        instance = Instance(name, source)
        try:
            self._build(instance)
        except LollmsError as error:
            instance.fail(error)
        except Exception as error:  # a plugin's constructor may raise anything; the others must still serve
            instance.fail(as_lollms_error(error))
        return instance

    def _build(self, instance: Instance) -> None:
        source = instance.source
        if source.settings is None:
            raise ConfigError(source.problem or "The settings cannot be read.", hint=source.hint)
        kind = self._types.get(source.type_name)
        if kind is None:
            known = ", ".join(sorted(self._types))
            raise ConfigError(
                f"bindings_map.{instance.name}: no installed plugin has the binding type '{source.type_name}'.",
                hint=f"Install its plugin or use one of: {known}. `lollms plugins` shows what is installed.",
            )
        settings = convert(source.settings, kind.Settings, where=source.where)
        instance.settings = redact(settings, source.settings)
        missing = kind.unavailable_reason()
        if missing is not None:
            raise missing
        front = kind(settings, source.context)
        isolated = front.isolation == "process"
        instance.binding = WorkerBinding(front, source.workers, self._observe) if isolated else front
        if front.parallel is not None:
            instance.queue = FairQueue(
                running=front.parallel,
                waiting=None,
                timeout=source.queue_timeout,
                what=f"binding '{instance.name}'",
            )

    def _start(self, instance: Instance) -> asyncio.Task[None] | None:
        """Open an instance in the background; None if there is nothing to open."""
        if instance.binding is None:
            return None
        if instance.binding.isolation != "inline":
            instance.state = "ready"  # its calls wait for the worker by themselves
        return self._keep(self._opening, self._open(instance, instance.binding), f"open {instance.name}")

    async def _open(self, instance: Instance, binding: Binding) -> None:
        try:
            await binding.open()
        except Exception as error:  # whatever a plugin raises makes this instance unavailable, not the server
            instance.fail(as_lollms_error(error))
        else:
            instance.state = "ready"
            logger.info("binding %s (%s) is ready", instance.name, instance.type_name)

    async def _prove(self, fresh: list[Instance]) -> None:
        """Open instances that shall serve from now on. Raises what is wrong with the first one, with all closed."""
        for instance in fresh:
            if instance.error is not None:
                raise instance.error
        try:
            async with asyncio.TaskGroup() as opening:
                for instance in fresh:
                    opening.create_task(self._open_in_time(instance))
        except BaseException as error:
            await asyncio.gather(*(instance.close() for instance in fresh))
            if isinstance(error, ExceptionGroup):
                raise error.exceptions[0] from None
            raise

    async def _open_in_time(self, instance: Instance) -> None:
        assert instance.binding is not None, "what could not be built was refused"
        limit = (
            INLINE_OPEN_TIMEOUT if instance.binding.isolation == "inline" else None
        )  # workers have their own
        try:
            async with asyncio.timeout(limit):
                await self._open(instance, instance.binding)
        except TimeoutError:
            instance.fail(
                BindingUnavailable(
                    f"Binding instance '{instance.name}' did not open within {limit:g} s.",
                    hint="Does the service behind it answer?",
                )
            )
        if instance.error is not None:
            raise instance.error

    def _keep(self, tasks: set[asyncio.Task[None]], work: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task
