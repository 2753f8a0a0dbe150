"""The configured binding instances: built from their settings, opened in the background, listed whatever happens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from .admission import FairQueue
from .config.decode import convert
from .config.load import LoadedConfig, instance_file, read_instance
from .config.secrets import redact
from .contracts import Binding, BindingContext, InstanceStatus
from .errors import BindingNotFound, BindingUnavailable, ConfigError, LollmsError
from .types import Event
from .workers.faults import as_lollms_error
from .workers.proxy import WorkerBinding

logger = logging.getLogger(__name__)

INLINE_OPEN_TIMEOUT = 10.0
CLOSE_TIMEOUT = 10.0


class Instance:
    """One configured binding: its object, its queue and its state."""

    def __init__(self, name: str, type_name: str, settings: dict[str, Any]) -> None:
        self.name = name
        self.type_name = type_name
        self.settings = settings
        """Settings as listings show them, without secrets."""
        self.state: Literal["ready", "starting", "failed"] = "starting"
        self.error: LollmsError | None = None
        self.binding: Binding | None = None
        self.queue: FairQueue | None = None

    def fail(self, error: LollmsError) -> None:
        """Note why it cannot serve."""
        self.state, self.error = "failed", error
        logger.error("binding %s (%s): %s", self.name, self.type_name, error.detail)

    def status(self) -> InstanceStatus:
        """What listings show."""
        return InstanceStatus(
            name=self.name,
            type=self.type_name,
            state=self.state,
            settings=self.settings,
            error=self.error.message if self.error else None,
            hint=self.error.hint if self.error else None,
        )

    def ready(self) -> Binding:
        """The binding. Raises BindingUnavailable with the reason."""
        if self.binding is None or self.state == "failed":
            reason = self.error.message if self.error else "It is still starting."
            raise BindingUnavailable(
                f"Binding instance '{self.name}' not available or failed to load. {reason}",
                hint=self.error.hint if self.error else "Try again in a moment.",
            )
        return self.binding


class Instances:
    """All instances of one kernel; a broken one never keeps the others from serving."""

    def __init__(
        self, loaded: LoadedConfig, types: Mapping[str, type[Binding]], observe: Callable[[Event], None]
    ) -> None:
        self._loaded = loaded
        self._types = types
        self._observe = observe
        self._instances: dict[str, Instance] = {}
        self._opening: list[asyncio.Task[None]] = []
        self.builtin = not loaded.main.bindings_map

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._instances.values())

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
        for name, type_name, settings in self._wanted():
            instance = self._instances[name] = Instance(name, type_name, {"type": type_name})
            try:
                self._build(instance, settings if settings is not None else read_instance(self._loaded, name))
            except LollmsError as error:
                instance.fail(error)
            except (
                Exception
            ) as error:  # a plugin's constructor may raise anything; the others must still serve
                instance.fail(as_lollms_error(error))

    async def open(self) -> None:
        """Start every instance; workers go on starting in the background, thin bindings get a bounded moment."""
        inline = []
        for instance in self._instances.values():
            if instance.binding is None:
                continue
            task = asyncio.create_task(self._open(instance, instance.binding), name=f"open {instance.name}")
            self._opening.append(task)
            if instance.binding.isolation == "inline":
                inline.append(task)
            else:
                instance.state = "ready"  # its calls wait for the worker by themselves
        if inline:
            await asyncio.wait(inline, timeout=INLINE_OPEN_TIMEOUT)

    async def close(self) -> None:
        """Close every instance, each for at most ten seconds."""
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        await asyncio.gather(*(self._close(instance) for instance in self._instances.values()))

    def _wanted(self) -> list[tuple[str, str, dict[str, Any] | None]]:
        if not self.builtin:
            return [(name, type_name, None) for name, type_name in self._loaded.main.bindings_map.items()]
        return [
            (name, kind.type_name, dict(settings))
            for kind in self._types.values()
            for name, settings in kind.builtin_instances().items()
        ]

    def _build(self, instance: Instance, raw: dict[str, Any]) -> None:
        kind = self._types.get(instance.type_name)
        if kind is None:
            known = ", ".join(sorted(self._types))
            raise ConfigError(
                f"bindings_map.{instance.name}: no installed plugin has the binding type '{instance.type_name}'.",
                hint=f"Install its plugin or use one of: {known}. `lollms plugins` shows what is installed.",
            )
        settings = convert(raw, kind.Settings, where=self._where(instance.name))
        instance.settings = redact(settings)
        missing = kind.unavailable_reason()
        if missing is not None:
            raise missing
        main = self._loaded.main
        context = BindingContext(
            models_folder=self._loaded.path("models_folder"),
            root=self._loaded.root,
            default_context_size=main.defaults.default_context_size,
            default_max_output_tokens=main.defaults.default_max_output_tokens,
        )
        front = kind(settings, context)
        isolated = front.isolation == "process"
        instance.binding = WorkerBinding(front, main.workers, self._observe) if isolated else front
        if front.parallel is not None:
            instance.queue = FairQueue(
                running=front.parallel,
                waiting=None,
                timeout=main.resource_manager.queue_timeout,
                what=f"binding '{instance.name}'",
            )

    def _where(self, name: str) -> str:
        return f"built-in instance {name}" if self.builtin else str(instance_file(self._loaded, name))

    async def _open(self, instance: Instance, binding: Binding) -> None:
        try:
            await binding.open()
        except Exception as error:  # whatever a plugin raises makes this instance unavailable, not the server
            instance.fail(as_lollms_error(error))
        else:
            instance.state = "ready"
            logger.info("binding %s (%s) is ready", instance.name, instance.type_name)

    async def _close(self, instance: Instance) -> None:
        if instance.binding is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await instance.binding.close()
        except Exception as error:  # closing goes on with the others; the reason is logged
            logger.warning(
                "binding %s did not close cleanly: %s", instance.name, as_lollms_error(error).detail
            )
