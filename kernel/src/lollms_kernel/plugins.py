"""Finds plugins through entry points and calls their hooks one by one.

A plugin that cannot be imported, whose hooks do not fit or whose hook raises is a fact to list, with its error
and its cure; the others go on. `LOLLMS_LOAD_PLUGINS=a,b` loads only those entry points (an empty value: none),
`LOLLMS_TRACE_PLUGINS=1` logs every hook call.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, Literal

import msgspec
import pluggy

from . import hookspecs
from .errors import ConfigError

logger = logging.getLogger(__name__)

OWN = "lollms-kernel"
"""The entry point of what the kernel itself ships; it goes through the same door, but cannot be left out."""


class PluginStatus(msgspec.Struct, kw_only=True):
    """One plugin as `lollms plugins` lists it."""

    name: str
    distribution: str | None = None
    version: str | None = None
    state: Literal["loaded", "broken", "disabled"] = "loaded"
    error: str | None = None
    hint: str | None = None
    hooks: tuple[str, ...] = ()


class PluginSet:
    """The plugins of one kernel."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.GROUP)
        self.manager.add_hookspecs(hookspecs)
        self.plugins: list[PluginStatus] = []

    def status(self, name: str) -> PluginStatus:
        """The status of the plugin called `name`."""
        return next(plugin for plugin in self.plugins if plugin.name == name)

    def add(
        self, name: str, load: Callable[[], object], distribution: metadata.Distribution | None = None
    ) -> None:
        """Import and register one plugin; whatever goes wrong ends in its status."""
        status = PluginStatus(name=name)
        if distribution is not None:
            status.distribution, status.version = distribution.name, distribution.version
        self.plugins.append(status)
        try:
            plugin = load()
            self._check_hooks(plugin)
            self.manager.register(plugin, name=name)
            self._check_names(name)
        except (
            Exception
        ) as error:  # any code may run at import; a broken plugin must not take the server along
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            self._mark_broken(status, error)
            return
        callers = self.manager.get_hookcallers(plugin) or []
        status.hooks = tuple(sorted(caller.name for caller in callers))

    def call_each(self, hook: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Call one hook of every plugin, first registered first; a raising one is marked broken and skipped."""
        caller = getattr(self.manager.hook, hook)
        for implementation in caller.get_hookimpls():
            try:
                result = implementation.function(*(arguments[name] for name in implementation.argnames))
            except ConfigError as error:
                self._mark_broken(self.status(implementation.plugin_name), error)
            except Exception as error:  # a stranger's code; see `add`
                self._mark_broken(self.status(implementation.plugin_name), error, hook=hook)
            else:
                yield implementation.plugin_name, result

    def trace(self) -> None:
        """Log every hook call with its arguments' names and its result."""

        def after(outcome: pluggy.Result[Any], name: str, methods: Sequence[pluggy.HookImpl], _: Any) -> None:
            called = ", ".join(method.plugin_name for method in methods) or "nobody"
            result = outcome.exception or type(outcome.get_result()).__name__
            logger.warning("hook %s: %s -> %s", name, called, result)

        self.manager.add_hookcall_monitoring(lambda *_: None, after)

    @staticmethod
    def _check_hooks(plugin: object) -> None:
        for name in dir(plugin):
            member = getattr(plugin, name, None)
            if inspect.iscoroutinefunction(member) and hasattr(member, f"{hookspecs.GROUP}_impl"):
                raise ConfigError(
                    f"The hook '{name}' is declared with `async def`.",
                    hint="Hooks are plain functions; async belongs into the methods of what they register.",
                )

    def _check_names(self, name: str) -> None:
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise ConfigError(str(error), hint="docs/hooks.md lists every hook and its arguments.") from None

    def _mark_broken(self, status: PluginStatus, error: Exception, hook: str | None = None) -> None:
        status.state = "broken"
        where = f"in hook {hook}: " if hook else ""
        status.error = f"{where}{type(error).__name__}: {error}"
        status.hint = _cure(status, error)
        logger.warning("plugin %s is broken: %s %s", status.name, status.error, status.hint)
        logger.debug("plugin %s", status.name, exc_info=error)


def _cure(status: PluginStatus, error: Exception) -> str:
    if isinstance(error, ConfigError) and error.hint:
        return error.hint
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"Install what it needs (`pip install {error.name.partition('.')[0]}`) or reinstall the plugin."
        )
    target = status.distribution or status.name
    return f"Update it (`pip install -U {target}`), remove it (`pip uninstall {target}`), or report this to its author."


def load_plugins(
    extra: Sequence[tuple[str, object]] = (), environ: Mapping[str, str] = os.environ
) -> PluginSet:
    """Every plugin of this Python installation, the kernel's own first, then `extra` (name, module or object)."""
    plugins = PluginSet()
    chosen = environ.get("LOLLMS_LOAD_PLUGINS")
    wanted = None if chosen is None else {name.strip() for name in chosen.split(",") if name.strip()}
    if wanted is not None:
        wanted.add(OWN)
    found: set[str] = set()
    for point in sorted(
        metadata.entry_points(group=hookspecs.GROUP), key=lambda point: (point.name != OWN, point.name)
    ):
        if point.name in found:
            continue
        found.add(point.name)
        if wanted is not None and point.name not in wanted:
            plugins.plugins.append(
                PluginStatus(name=point.name, state="disabled", hint="See LOLLMS_LOAD_PLUGINS.")
            )
            continue
        plugins.add(point.name, point.load, point.dist)
    for missing in sorted((wanted or set()) - found):
        hint = f"Install it (`pip install {missing}`) or take it out of LOLLMS_LOAD_PLUGINS."
        plugins.plugins.append(PluginStatus(name=missing, state="broken", error="not installed", hint=hint))
    for name, plugin in extra:
        plugins.add(name, lambda plugin=plugin: plugin)  # type: ignore[misc]
    if environ.get("LOLLMS_TRACE_PLUGINS"):
        plugins.trace()
    return plugins
