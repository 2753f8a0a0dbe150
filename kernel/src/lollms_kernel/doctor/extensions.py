"""Plugins, binding types with their engines, and the configured instances."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from ..contracts import Binding, InstanceStatus
from ..errors import BindingUnavailable, ConfigError, LollmsError
from .findings import Finding

if TYPE_CHECKING:
    from ..config.load import LoadedConfig
    from ..plugins import PluginSet

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def examine_plugins(plugins: PluginSet) -> Iterator[Finding]:
    """One finding for each plugin."""
    for plugin in plugins.plugins:
        title = f"plugin {plugin.name}"
        if plugin.state == "broken":
            yield Finding("error", title, f"broken: {plugin.error}", plugin.hint)
        elif plugin.state == "disabled":
            yield Finding("ok", title, "disabled by LOLLMS_LOAD_PLUGINS")
        else:
            yield Finding("ok", title, plugin.version or "loaded")


def examine_bindings(loaded: LoadedConfig, plugins: PluginSet) -> Iterator[Finding]:
    """Findings about each binding type, what it says itself, and each configured instance."""
    from ..kernel import LocalKernel

    try:
        kernel = LocalKernel(loaded, plugins)
    except ConfigError as error:
        yield Finding("error", "configuration", error.message, error.hint)
        return
    instances = kernel.instances()
    used = {instance.type for instance in instances}
    for kind in kernel.binding_types.values():
        yield _type(kind, kind.type_name in used)
        yield from _own_findings(kind)
    for instance in instances:
        yield _instance(instance)
    if kernel.default_binding("ttt") is None:
        yield Finding(
            "warning",
            "default model",
            "no binding answers text requests that name none",
            "Set defaults.ttt_binding to an instance of bindings_map; `lollms bindings` lists them.",
        )


def _type(kind: type[Binding], used: bool) -> Finding:
    title = f"binding type {kind.type_name}"
    missing = reason_against(kind)
    if missing is not None:
        return Finding("error" if used else "warning", title, missing.message, missing.hint)
    return Finding("ok", title, ", ".join(_engines(kind)) or "available")


def reason_against(kind: type[Binding]) -> LollmsError | None:
    """Why this binding type cannot work here; None if it can."""
    try:
        return kind.unavailable_reason()
    except Exception as error:  # a plugin's code may raise anything, and that is a reason too
        return BindingUnavailable(
            f"unavailable_reason() raised {error!r}.", hint="Report this to its author."
        )


def _own_findings(kind: type[Binding]) -> Iterator[Finding]:
    """What the type adds; see the package's docstring."""
    try:
        for level, title, text, cure in getattr(kind, "doctor_findings", tuple)():
            yield Finding(level, title, text, cure)
    except Exception as error:  # a plugin's code may raise anything; the examination goes on
        title = f"binding type {kind.type_name}"
        yield Finding("error", title, f"doctor_findings() raised {error!r}", "Report this to its author.")


def _engines(kind: type[Binding]) -> Iterator[str]:
    """The installed versions of the packages that its card names; metadata only, nothing is imported."""
    for requirement in kind.card.requirements:
        found = _NAME.match(requirement)
        if found is None:
            continue
        try:
            yield f"{found.group()} {metadata.version(found.group())}"
        except metadata.PackageNotFoundError:
            yield f"{found.group()} not installed"


def _instance(instance: InstanceStatus) -> Finding:
    title = f"binding instance {instance.name}"
    if instance.state == "failed":
        return Finding("error", title, instance.error or "it failed", instance.hint)
    return Finding("ok", title, f"{instance.type}, configured")
