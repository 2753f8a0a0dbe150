"""What is wrong between keys of the main configuration that are each valid."""

from __future__ import annotations

from collections.abc import Iterator

from .api_keys import entries
from .describe import shown
from .exposure import ALLOWED, is_host
from .faults import Fault, did_you_mean
from .places import Place
from .schema import ApiKeyEntry, MainConfig, SecurityConfig, WorkersConfig


def contradictions(main: MainConfig, *, map_is_known: bool = True) -> Iterator[Fault]:
    """Every contradiction; `map_is_known` False: nothing is said about what names an instance."""
    if not is_host(main.server.host):
        yield Fault(("server", "host"), f"is {shown(main.server.host)}, must be {ALLOWED}.")
    if main.bindings_map and map_is_known:
        yield from _unknown_instances(main)
    yield from _keys(main.security)
    yield from _times(main.workers)


def _unknown_instances(main: MainConfig) -> Iterator[Fault]:
    named: list[tuple[Place, str]] = []
    for key in main.defaults.__struct_fields__:
        value = getattr(main.defaults, key)
        if key.endswith("_binding") and value is not None:
            named.append((("defaults", key), value))
    for index, entry in enumerate(main.security.allowed_api_keys):
        if isinstance(entry, ApiKeyEntry) and entry.bindings is not None:
            listed: Place = ("security", "allowed_api_keys", index, "bindings")
            named += [((*listed, number), name) for number, name in enumerate(entry.bindings)]
    for place, value in named:
        if value not in main.bindings_map:
            guess = did_you_mean(value, main.bindings_map) or f"; it has {', '.join(main.bindings_map)}."
            yield Fault(place, f"is {shown(value)}, which bindings_map does not have{guess}")


def _keys(security: SecurityConfig) -> Iterator[Fault]:
    names: dict[str, int] = {}
    digests: dict[bytes, int] = {}
    for index, (known, entry) in enumerate(entries(security)):
        if not isinstance(security.allowed_api_keys[index], ApiKeyEntry):
            digests.setdefault(known, index)
            continue
        place = ("security", "allowed_api_keys", index)
        if (entry.key is None) == (entry.hash is None):
            yield Fault(place, "must have either `key` or `hash`.")
            continue
        if entry.name in names:
            yield Fault((*place, "name"), f"is {shown(entry.name)}, as that of entry {names[entry.name]}.")
        elif known in digests:
            yield Fault(place, f"has the same key as entry {digests[known]}.")
        names.setdefault(entry.name, index)
        digests.setdefault(known, index)


def _times(workers: WorkersConfig) -> Iterator[Fault]:
    if workers.heartbeat_timeout <= workers.heartbeat_interval:
        yield Fault(
            ("workers", "heartbeat_timeout"),
            f"is {workers.heartbeat_timeout}, must be greater than heartbeat_interval"
            f" ({workers.heartbeat_interval}).",
        )
    if workers.restart_delay_max < workers.restart_delay:
        yield Fault(
            ("workers", "restart_delay_max"),
            f"is {workers.restart_delay_max}, must be at least restart_delay ({workers.restart_delay}).",
        )
