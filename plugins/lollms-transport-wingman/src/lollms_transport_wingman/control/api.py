"""The endpoints of the control API: what each path answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from lollms_kernel.contracts import Kernel
from lollms_kernel.downloads import Downloads, check_file, check_repo
from lollms_kernel.errors import InvalidRequest, LollmsError, NotFound

from .answers import Receive, Reply, Request, read_body
from .catalogue import Catalogue
from .hardware import Probe
from .inference import Answer, Inference
from .metadata import header_of, metadata
from .objects import WingmanItem, download_item

logger = logging.getLogger(__name__)
client_logger = logging.getLogger("lollms.wingman.client")

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
MAX_PORT = 65535
MAX_CONTEXT = 2**31 - 1
MAX_LAYERS = 10_000
MAX_ALIAS = 512
SHUTTING_DOWN = "Shutting down"

Handler = Callable[["Api", dict[str, str]], Awaitable[Reply]]


class LogItem(msgspec.Struct, frozen=True):
    """A line for the server's log; missing fields have these values."""

    level: str = "info"
    message: str = ""
    timestamp: int | float = 0


class Api:
    """Answers requests."""

    def __init__(
        self, kernel: Kernel, downloads: Downloads, inference: Inference, default_port: int, probe: Probe
    ) -> None:
        self._kernel = kernel
        self._downloads = downloads
        self._inference = inference
        self._default_port = default_port
        self._probe = probe
        self._catalogue = Catalogue(downloads)

    async def answer(self, request: Request, receive: Receive) -> Reply:
        """The answer to one request, whatever it is."""
        path = request.path.lower().rstrip("/")
        if path == "/api/utils/log":
            return (
                await self._log(request, receive)
                if request.method == "POST"
                else _not_allowed(request, "POST")
            )
        if path not in ROUTES:
            return Reply(404)
        if request.method not in ("GET", "HEAD"):
            return _not_allowed(request, "GET, HEAD")
        right, handler = ROUTES[path]
        if (right == "change" and not request.visitor.may_change) or (
            right == "stop" and not request.visitor.may_stop
        ):
            return Reply(403)
        if right != "read" and request.method == "HEAD":
            return Reply(200)  # nothing may change by looking
        try:
            query = request.query()
        except ValueError:
            return Reply(400)
        try:
            return await handler(self, query)
        except LollmsError as error:
            logger.warning("%s: %s", path, error.detail)
            return Reply(500 if error.status < 500 else error.status)

    # --- catalogue and machine ---

    async def models(self, _: dict[str, str]) -> Reply:
        """Every model of the hub's listing."""
        memory = (await self._probe.hardware()).for_models
        failed = frozenset(
            (item.modelRepo, item.filePath) for item in self._inference.items if item.status == "error"
        )
        return Reply(value={"models": await self._catalogue.models(memory, failed)})

    async def hardware(self, _: dict[str, str]) -> Reply:
        """Memory of CPU and GPU."""
        return Reply(value=await self._probe.hardware())

    async def model_metadata(self, query: dict[str, str]) -> Reply:
        """What a downloaded model says about itself; without parameters the one that runs."""
        current = self._inference.current
        repo, file = query.get("modelRepo"), query.get("filePath")
        if repo is None and file is None and current is not None:
            repo, file = current.modelRepo, current.filePath
        if repo is None or file is None:
            return Reply(422)
        download = await self._downloads.get(repo, file)
        if download is None or not await self._downloads.is_here(download):
            return Reply(404)
        header = await header_of(self._downloads.path(repo, file))
        found = metadata(repo, file, header) if header is not None else None
        return Reply(404) if found is None else Reply(value=found)

    async def health(self, _: dict[str, str]) -> Reply:
        """That it runs."""
        return Reply(value={"status": "ok"})

    async def shutdown(self, _: dict[str, str]) -> Reply:
        """Stop the server, after this answer."""
        self._kernel.stop()
        return Reply(text=SHUTTING_DOWN)

    # --- downloads ---

    async def downloads(self, query: dict[str, str]) -> Reply:
        """All, or those that fit."""
        rows = await self._downloads.all(query.get("modelRepo"), query.get("filePath"))
        return Reply(value={"DownloadItems": [download_item(row) for row in rows]})

    async def enqueue(self, query: dict[str, str]) -> Reply:
        """Queue a file."""
        key = _key(query)
        if key is None:
            return Reply(422)
        try:
            check_repo(key[0])
            check_file(key[1])
        except InvalidRequest:
            return Reply(404)  # no hub has such a name
        try:
            download, fresh = await self._downloads.enqueue(*key)
        except NotFound:
            return Reply(404)
        return Reply(202 if fresh else 208, download_item(download))

    async def cancel(self, query: dict[str, str]) -> Reply:
        """Give a download up."""
        key = _key(query)
        return Reply(422) if key is None else await _or_404(lambda: self._downloads.cancel(*key))

    async def pause(self, query: dict[str, str]) -> Reply:
        """Interrupt a download; `enqueue` goes on with it."""
        key = _key(query)
        return Reply(422) if key is None else await _or_404(lambda: self._downloads.pause(*key))

    async def reset(self, query: dict[str, str]) -> Reply:
        """Take a download and its file away."""
        key = _key(query)
        return Reply(422) if key is None else await _or_404(lambda: self._downloads.reset(*key))

    # --- inference ---

    async def items(self, query: dict[str, str]) -> Reply:
        """All, or the one of an alias."""
        return Reply(value={"WingmanItems": self._shown(query.get("alias"))})

    async def status(self, query: dict[str, str]) -> Reply:
        """The same as a bare array."""
        return Reply(value=self._shown(query.get("alias")))

    async def start(self, query: dict[str, str]) -> Reply:
        """Run a model."""
        wanted = self._wanted(query)
        if wanted is None:
            return Reply(422, {})
        answer = await self._inference.start(wanted)
        if answer.status == 404:
            return Reply(404, {})
        return _shown(answer)

    async def stop(self, query: dict[str, str]) -> Reply:
        """Stop a model."""
        return await self._with_alias(query, self._inference.stop)

    async def reset_inference(self, query: dict[str, str]) -> Reply:
        """Stop a model and forget it."""
        return await self._with_alias(query, self._inference.reset)

    async def restart(self, query: dict[str, str]) -> Reply:
        """Stop a model and start it again."""
        return await self._with_alias(query, self._inference.restart)

    async def _with_alias(self, query: dict[str, str], act: Callable[[str], Awaitable[Answer]]) -> Reply:
        alias = query.get("alias")
        return Reply(422) if alias is None else _shown(await act(alias))

    def _shown(self, alias: str | None) -> list[dict[str, Any]]:
        return [item.shown() for item in self._inference.items if alias in (None, item.alias)]

    def _wanted(self, query: dict[str, str]) -> WingmanItem | None:
        """The item that a start asks for; None where a parameter is missing or impossible."""
        key = _key(query)
        if key is None:
            return None
        alias = query.get("alias", key[1])
        address = query.get("address", "localhost")
        try:
            port = _number(query.get("port"), self._default_port, 1, MAX_PORT)
            context = _number(query.get("contextSize"), 0, 0, MAX_CONTEXT)
            layers = _number(query.get("gpuLayers"), -1, -1, MAX_LAYERS)
        except ValueError:
            return None
        if len(alias) > MAX_ALIAS or len(address) > 255 or not address.isprintable():
            return None
        return WingmanItem(
            alias=alias,
            modelRepo=key[0],
            filePath=key[1],
            address=address,
            port=port,
            contextSize=context,
            gpuLayers=layers,
            chatTemplate=query.get("chatTemplate", "chatml"),
        )

    # --- log ---

    async def _log(self, request: Request, receive: Receive) -> Reply:
        if not request.visitor.may_change:
            return Reply(403)
        body = await read_body(receive)
        if body is None:
            return Reply(413)
        try:
            item = msgspec.json.decode(body, type=LogItem)
        except (msgspec.DecodeError, ValueError):
            return Reply(400)
        text = "".join(letter if letter.isprintable() else " " for letter in item.message)
        client_logger.log(LEVELS.get(item.level, logging.INFO), "%s", text)
        return Reply(200)


Right = Literal["read", "change", "stop"]

ROUTES: dict[str, tuple[Right, Handler]] = {
    "/api/models": ("read", Api.models),
    "/api/model/metadata": ("read", Api.model_metadata),
    "/api/hardware": ("read", Api.hardware),
    "/api/hardwareinfo": ("read", Api.hardware),
    "/health": ("read", Api.health),
    "/api/health": ("read", Api.health),
    "/api/shutdown": ("stop", Api.shutdown),
    "/api/downloads": ("read", Api.downloads),
    "/api/downloads/enqueue": ("change", Api.enqueue),
    "/api/downloads/cancel": ("change", Api.cancel),
    "/api/downloads/pause": ("change", Api.pause),
    "/api/downloads/reset": ("change", Api.reset),
    "/api/downloads/remove": ("change", Api.reset),
    "/api/inference": ("read", Api.items),
    "/api/inference/status": ("read", Api.status),
    "/api/inference/start": ("change", Api.start),
    "/api/inference/stop": ("change", Api.stop),
    "/api/inference/reset": ("change", Api.reset_inference),
    "/api/inference/restart": ("change", Api.restart),
}
"""What each path needs and does, in lower case and without a slash at the end."""


def _key(query: dict[str, str]) -> tuple[str, str] | None:
    repo, file = query.get("modelRepo"), query.get("filePath")
    return None if repo is None or file is None else (repo, file)


def _number(text: str | None, default: int, least: int, most: int) -> int:
    """Raises ValueError where it is none, or out of range."""
    if text is None:
        return default
    value = int(text) if len(text) <= 12 else most + 1
    if not least <= value <= most:
        raise ValueError(text)
    return value


def _shown(answer: Answer) -> Reply:
    return Reply(answer.status, None if answer.item is None else answer.item.shown())


async def _or_404(act: Callable[[], Awaitable[Any]]) -> Reply:
    try:
        return Reply(200, download_item(await act()))
    except NotFound:
        return Reply(404)


def _not_allowed(request: Request, allowed: str) -> Reply:
    if request.method == "OPTIONS":
        return Reply(204, headers={"allow": f"{allowed}, OPTIONS"})
    return Reply(405, headers={"allow": f"{allowed}, OPTIONS"})
