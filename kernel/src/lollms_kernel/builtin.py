"""What the kernel itself ships, registered through the same hooks as anybody's plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .contracts import DEFAULT_WELCOME, Personality, PersonalityCard, Register
from .dummy import DummyBinding
from .gpu import NoLock, Semaphore, SimpleLock
from .hookspecs import hookimpl

if TYPE_CHECKING:
    from .config.schema import MainConfig

LOLLMS = PersonalityCard(
    id="lollms",
    name="lollms",
    author="lollms",
    version="1.0",
    description="A helpful and honest assistant.",
    category="generic",
    folder="lollms",
    conditioning="You are a helpful, honest and concise assistant.",
    welcome_message=DEFAULT_WELCOME,
)


@hookimpl
def register_bindings(register: Register) -> None:
    """The dummy binding."""
    register(DummyBinding)


@hookimpl
def register_gpu_strategies(register: Register) -> None:
    """none, simple_lock and semaphore."""
    for strategy in (NoLock, SimpleLock, Semaphore):
        register(strategy)


@hookimpl
def register_personalities(register: Register, config: MainConfig) -> None:
    """The one personality that is always there."""
    register(Personality(LOLLMS))


@hookimpl
def register_transports(register: Register) -> None:
    """The LoLLMs REST/SSE protocol."""
    from .rest import RestTransport  # a transport is needed by `serve` only; Litestar takes 150 ms to import

    register(RestTransport)
