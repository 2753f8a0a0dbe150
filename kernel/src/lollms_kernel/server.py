"""Serves every protocol on its port, all on one event loop, until a signal says stop.

Ports are bound before anything is started, so that a taken one is told at once. Stopping takes no new work, lets
running answers end for `server.shutdown_grace` seconds, ends the others with a last event, and only then closes
transports, bindings and workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from litestar import Litestar
from litestar.datastructures import State

from . import logs
from .config.concealment import guard_logs
from .config.exposure import check_exposure, is_exposed
from .config.load import LoadedConfig, create_folders, load_config
from .config.watch import watch
from .contracts import Listener, Transport
from .errors import ConfigError, LollmsError
from .gate import Gate
from .kernel import LocalKernel, Serving
from .plugins import PluginSet, load_plugins
from .rest.docs_pages import openapi_config
from .rest.errors import exception_handlers

logger = logging.getLogger(__name__)

Announce = Callable[[str], None]


def create_app(kernel: LocalKernel, transports: Sequence[Transport], host: str = "127.0.0.1") -> Gate:
    """The ASGI application of the main port: all transports' routes behind the gate."""
    app = Litestar(
        route_handlers=[handler for transport in transports for handler in transport.route_handlers()],
        exception_handlers=exception_handlers,
        openapi_config=openapi_config(),
        request_max_body_size=kernel.config.server.max_body_size,
        logging_config=None,
        state=State({"transports": tuple(transports)}),
    )
    return Gate(app, kernel.config, kernel.access, host, transports)  # type: ignore[arg-type]  # Litestar types ASGI as TypedDicts


def run(
    config_dir: Path, host: str | None, port: int | None, announce: Announce, *, extra_ports: bool = True
) -> int:
    """Serve until SIGINT or SIGTERM; the exit code. Raises ConfigError for whatever keeps it from starting.

    Without `extra_ports`, protocols that have ports of their own answer on the main port only.
    """
    loaded = load_config(config_dir)
    main = loaded.main
    logs.configure(main.logging.log_level, main.logging.format)
    guard_logs()
    host, port = host or main.server.host, main.server.port if port is None else port
    check_exposure(host, main)
    for warning in [*loaded.warnings, *create_folders(loaded)]:
        logger.warning(warning)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(loaded, load_plugins(), host, port, announce, extra_ports=extra_ports))


def run_protocol(
    loaded: LoadedConfig, host: str, announce: Announce, *, needs: Sequence[str], brings: tuple[str, object]
) -> int:
    """Serve a configuration that no file holds on the ports of its protocols alone, without the main port, until a
    signal says stop; the exit code. `announce` is called once all ports answer. Raises ConfigError.

    For commands of plugins that play another server: they name the plugins that they need, no others are loaded, and
    bring one of their own, by its name, which registers the transport.
    """
    logs.configure(loaded.main.logging.log_level, loaded.main.logging.format)
    guard_logs()
    check_exposure(host, loaded.main)
    plugins = load_plugins([brings], {**os.environ, "LOLLMS_LOAD_PLUGINS": ",".join(needs)})
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(loaded, plugins, host, None, announce))


async def serve(
    loaded: LoadedConfig,
    plugins: PluginSet,
    host: str,
    port: int | None,
    announce: Announce,
    *,
    extra_ports: bool = True,
) -> int:
    """Open the kernel and all listeners, and serve until a signal comes. Without `port` there is no main port."""
    kernel = LocalKernel(loaded, plugins)
    transports = kernel.build_transports()
    wanted = []
    if port is not None:
        wanted.append(Listener(port, create_app(kernel, transports, host), host, required=True))
    for transport in transports if extra_ports else ():
        for listener in transport.listeners():
            gate = Gate(
                listener.app,
                kernel.config,
                kernel.access,
                listener.host or host,
                [transport],
                listener.rules,
            )
            wanted.append(msgspec.structs.replace(listener, app=gate, host=listener.host or host))
    kernel.access.key_required = any(is_exposed(listener.host or host, loaded.main) for listener in wanted)
    grace = kernel.config.server.shutdown_grace
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            _Server(listener.app, bound, grace)
            for listener in wanted
            if (bound := _bind(listener, stack)) is not None
        ]
        stop = _Stop(servers)
        kernel.serving = Serving(lambda listener: _opened(kernel, listener, host, grace), stop)
        await stack.enter_async_context(kernel)
        try:
            await kernel.downloads.open()
        except LollmsError as error:  # everything else works without downloads
            logger.error("Downloads rest: %s", error.detail)
        for transport in transports:
            await transport.open()
            stack.push_async_callback(transport.close)
        if port is not None:  # else no file holds the configuration
            watching = asyncio.create_task(watch(loaded, lambda new: kernel.use_keys(new.main.security)))
            stack.callback(watching.cancel)
        await _until_stopped(
            kernel, transports, servers, grace, lambda: announce(_banner(kernel, servers[0].url)), stop
        )
    return 0


class _Stop:
    """What a signal does: the first one asks, the second one means now."""

    def __init__(self, servers: Sequence[_Server]) -> None:
        self.asked = asyncio.Event()
        self._servers = servers

    def __call__(self, now: bool = False) -> None:
        if self.asked.is_set() or now:
            for server in self._servers:
                server.force_exit = True
        self.asked.set()


class _Server(uvicorn.Server):
    """One listener; signals are ours."""

    def __init__(self, app: Any, bound: socket.socket, grace: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=int(grace) + 3,
            )
        )
        self._socket = bound
        self.ready = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def serve_bound(self) -> None:
        """Serve on the socket that was bound at the start."""
        await self.serve(sockets=[self._socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _opened(kernel: LocalKernel, listener: Listener, host: str, grace: float) -> AsyncIterator[str]:
    """One more port, for `Kernel.listen`."""
    assert listener.rules is not None, "the routes of the main port are not those of this one"
    host = listener.host or host
    check_exposure(host, kernel.config)
    gate = Gate(listener.app, kernel.config, kernel.access, host, (), listener.rules)
    with _bound(host, listener.port) as bound:
        server = _Server(gate, bound, grace)
        serving = asyncio.create_task(server.serve_bound(), name=f"port {listener.port}")
        try:
            await server.ready.wait()
            yield server.url
        finally:
            server.should_exit = True
            await asyncio.wait([serving])  # never cancelled: that would leave the port open


async def _until_stopped(
    kernel: LocalKernel,
    transports: Sequence[Transport],
    servers: Sequence[_Server],
    grace: float,
    when_ready: Callable[[], None],
    stop: _Stop,
) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        async with asyncio.TaskGroup() as tasks:
            for server in servers:
                tasks.create_task(server.serve_bound())
            for server in servers:
                await server.ready.wait()
            when_ready()
            await stop.asked.wait()
            tasks.create_task(kernel.drain(grace))
            await _take_leave(transports, grace)
            for server in servers:
                server.should_exit = True
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _take_leave(transports: Sequence[Transport], grace: float) -> None:
    """Let every protocol end its connections in its own way, all at once; none keeps the server from stopping."""
    leaving = {asyncio.create_task(transport.drain(grace)): transport.name for transport in transports}
    if not leaving:
        return
    done, late = await asyncio.wait(leaving, timeout=grace + 1.0)
    for task in late:
        task.cancel()
        logger.warning("%s: still ending connections after %g s; left alone", leaving[task], grace + 1.0)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: ending its connections failed", leaving[task], exc_info=error)


def _bind(
    listener: Listener, stack: contextlib.ExitStack | contextlib.AsyncExitStack
) -> socket.socket | None:
    """The socket of a listener, closed by `stack`; None for a default port that is taken, which the log tells."""
    try:
        return stack.enter_context(_bound(listener.host or "", listener.port))
    except ConfigError as error:
        if listener.required:
            raise
        logger.warning("%s The server goes on without this port.", error.message)
        return None


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A listening address. Raises ConfigError with the cure when it is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio switches Nagle off on every connection: short answers would wait 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
            bound.listen(2048)
        except OSError as error:
            raise ConfigError(
                f"Cannot listen on {host} port {port}: {error.strerror or error}.",
                hint=f"Stop the program that uses it or choose another one: lollms serve --port {port + 1}",
            ) from None
        yield bound
    finally:
        bound.close()


def _banner(kernel: LocalKernel, url: str) -> str:
    from importlib.metadata import version

    default = kernel.default_binding("ttt")
    state = next((status for status in kernel.instances() if status.name == default), None)
    if state is None:
        model = "none yet: set defaults.ttt_binding, see lollms doctor"
    elif state.state == "failed":
        model = f"{state.name} is not available: {state.error} {state.hint or ''}".rstrip()
    else:
        name = state.settings.get("default_model") or state.settings.get("model") or "its own"
        model = f"{name} (binding {state.name})"
        if name == "lollms-guide":
            model = "lollms-guide (embedded, a tiny demonstration model)"
    return (
        f"lollms {version('lollms-kernel')} — ready on {url}\n"
        f"  try it     lollms chat\n"
        f"  API docs   {url}/docs\n"
        f"  model      {model}\n"
        f"  stop       Ctrl-C"
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ModuleNotFoundError:  # it only makes things faster
        return None
    return uvloop.new_event_loop
