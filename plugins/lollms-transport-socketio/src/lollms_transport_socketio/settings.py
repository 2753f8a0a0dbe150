"""The section `transports.socketio` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from lollms_kernel.contracts import Secret, TransportSettings
from lollms_kernel.errors import ConfigError

_DAY = 86400

RedisUrl = Annotated[
    str,
    Meta(
        pattern=r"\A(rediss?|unix)://",
        extra={"allowed": "an address such as redis://localhost:6379/0"},
    ),
]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class SocketioSettings(TransportSettings, frozen=True, kw_only=True):
    """Who may connect, how much each socket may use, and what outlives a connection."""

    selection: Annotated[
        Literal["socket", "shared"],
        Meta(
            description="Whose choice of binding, model and personalities counts: each socket's own, or one for all"
            " sockets as in lollms of 2023."
        ),
    ] = "socket"
    personalities: Annotated[
        tuple[str, ...],
        Meta(description="Personalities (id, name or folder) that a new socket starts with, in this order."),
    ] = ("lollms",)
    store: Annotated[
        Literal["auto", "memory", "file", "redis"],
        Meta(
            description="Where sessions are kept that clients resume: in the process, in the folder"
            " `socketio_sessions` beside the configuration folder, or in Redis. `auto`: Redis where `redis_url` is"
            " set, else memory."
        ),
    ] = "auto"
    session_ttl: Annotated[
        int, Meta(ge=1, le=365 * _DAY, description="Seconds that a session is kept after its last use.")
    ] = 3600
    max_sessions: Annotated[
        Count,
        Meta(description="Sessions that the process keeps in `memory` or `file`; the oldest give way."),
    ] = 10_000
    history_limit: Annotated[
        int,
        Meta(
            ge=1024,
            le=100_000_000,
            description="Characters of conversation that a socket keeps; older turns go first.",
        ),
    ] = 262_144
    recovery_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=600,
            description="How long a client that offers recovery may be away without losing anything. 0: no recovery.",
        ),
    ] = 30.0
    redis_url: Annotated[
        RedisUrl | None,
        Meta(
            description="Redis through which several server processes behind one address work together. No password in"
            " it: see `redis_password`.",
        ),
    ] = None
    redis_password: Annotated[Secret | None, Meta(description="Password of that Redis.")] = None
    redis_channel: Annotated[
        str,
        Meta(min_length=1, max_length=100, description="Channel and key prefix; one for each deployment."),
    ] = "lollms-socketio"
    allow_query_key: Annotated[
        bool,
        Meta(
            description="Accept an API key as `?api_key=` of the address as well. Addresses end up in logs and"
            " histories, so prefer the `auth` payload or a header."
        ),
    ] = False
    max_connections: Annotated[Count, Meta(description="Connections at once; further ones get 503.")] = 5000
    max_connections_per_key: Annotated[
        Count | None, Meta(description="Sockets at once for each API key. Null: no limit.")
    ] = None
    connect_timeout: Annotated[
        float,
        Meta(gt=0, le=600, description="Seconds that a new connection has to bring its key and join."),
    ] = 10.0
    max_message_size: Annotated[
        int,
        Meta(ge=1024, le=16 * 1024 * 1024, description="Largest message of a client in bytes."),
    ] = 4 * 1024 * 1024
    events_per_second: Annotated[
        float, Meta(gt=0, le=100_000, description="Events that a socket may send in the long run.")
    ] = 50.0
    event_burst: Annotated[Count, Meta(description="Events that it may send at once.")] = 100
    max_waiting_prompts: Annotated[
        int,
        Meta(ge=0, le=1000, description="Prompts of one socket that may wait for its running answer."),
    ] = 4
    max_pending_packets: Annotated[
        Count, Meta(description="Packets that may wait for a slow client; then its answer waits for it.")
    ] = 256
    max_pending_bytes: Annotated[int, Meta(ge=1024, le=1 << 30, description="The same in bytes.")] = (
        4 * 1024 * 1024
    )
    slow_client_timeout: Annotated[
        float,
        Meta(gt=0, le=3600, description="Seconds after which a client that takes nothing is disconnected."),
    ] = 30.0
    ping_interval: Annotated[
        float, Meta(gt=0, le=3600, description="Seconds between two pings of the server.")
    ] = 25.0
    ping_timeout: Annotated[
        float,
        Meta(gt=0, le=3600, description="Seconds without an answer after which a client counts as gone."),
    ] = 20.0

    @property
    def where_sessions_are(self) -> Literal["memory", "file", "redis"]:
        """`store` with `auto` decided."""
        if self.store != "auto":
            return self.store
        return "redis" if self.redis_url else "memory"

    def check(self) -> None:
        """Raise ConfigError for settings that contradict each other."""
        if self.store == "redis" and self.redis_url is None:
            raise ConfigError(
                "transports.socketio.store is 'redis' and there is no transports.socketio.redis_url.",
                hint="Set redis_url, for example to redis://localhost:6379/0.",
            )
        if self.redis_url is not None and urlsplit(self.redis_url).password is not None:
            raise ConfigError(
                "transports.socketio.redis_url holds a password, which listings would show.",
                hint="Write it to redis_password instead.",
            )
