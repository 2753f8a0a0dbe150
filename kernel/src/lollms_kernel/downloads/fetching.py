"""One request for the bytes of a file: redirects by hand, `Range` and `If-Range`, refusals as errors.

The token goes to the hub alone: a redirect to another host, port or scheme is followed without it, and one from https
to http is not followed at all.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import quote, urljoin, urlsplit

import httpx
import msgspec

from ..errors import DownloadFailed, LollmsError, Unavailable
from ..upstream import on_this_machine
from .hub import refusal, unreachable

MAX_REDIRECTS = 5
CONNECT_TIMEOUT = 15.0
_REDIRECTS = {301, 302, 303, 307, 308}
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The beginning of an answer that has bytes."""

    start: int
    """The position of its first byte in the file."""
    total: int
    """Bytes of the whole file; 0 where it is not told."""
    etag: str
    """Of the server that sends the bytes; "" if it has none that can be compared."""
    linked: str
    """The checksum that the hub names in its headers: 64 digits SHA-256, 40 digits git's; "" for neither."""
    blocks: AsyncIterator[bytes]


class NothingLeft(Exception):
    """There are no bytes from the asked position on (HTTP 416); `total` is the size that the server names, or 0."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.total = total


class Fetcher:
    """Asks one hub for files, over connections of its own."""

    def __init__(self, hub_url: str, token: str | None, stall_timeout: float) -> None:
        self._hub = hub_url.rstrip("/")
        self._token = token
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(stall_timeout, connect=CONNECT_TIMEOUT),
            follow_redirects=False,
            trust_env=not on_this_machine(self._hub),
            headers={"accept-encoding": "identity", "user-agent": "lollms"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def address(self, repo: str, file: str, revision: str) -> str:
        """Where a file is."""
        return f"{self._hub}/{quote(repo)}/resolve/{quote(revision or 'main', safe='')}/{quote(file)}"

    @asynccontextmanager
    async def open(
        self, repo: str, file: str, revision: str, offset: int, etag: str
    ) -> AsyncIterator[Answer]:
        """The bytes of a file from `offset` on, or from 0 where the server begins anew.

        Raises NothingLeft, or the error that a refusal means; Unavailable and RateLimited may pass by themselves.
        """
        url = self.address(repo, file, revision)
        headers = {}
        if offset:
            headers["range"] = f"bytes={offset}-"
            if etag:
                headers["if-range"] = etag
        linked: dict[str, str] = {}
        for _ in range(MAX_REDIRECTS + 1):
            at_hub = _same(url, self._hub)
            own = {"authorization": f"Bearer {self._token}"} if self._token and at_hub else {}
            async with self._send(url, {**headers, **own}) as response:
                for name in ("x-linked-etag", "etag") if at_hub else ():
                    linked.setdefault(name, response.headers.get(name, ""))
                if response.status_code not in _REDIRECTS:
                    yield _answer(response, f"the file '{repo}/{file}'", offset, linked)
                    return
                url = _next(url, response.headers.get("location", ""))
        raise DownloadFailed(f"The hub redirects '{repo}/{file}' more than {MAX_REDIRECTS} times.")

    @asynccontextmanager
    async def _send(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        with _told(url):
            request = self._client.build_request("GET", url, headers=headers)
            response = await self._client.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn what httpx raises inside into an error of ours."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise explained(error, address) from error


def explained(error: Exception, address: str) -> LollmsError:
    """The error for what httpx raises."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return unreachable(address)
    if isinstance(error, httpx.TimeoutException):
        return Unavailable("The hub stopped sending.", hint="Try again later.")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return DownloadFailed("The hub redirects to an address that is none.")
    return Unavailable("The connection to the hub broke.", hint="Try again later.")


async def _blocks(response: httpx.Response, address: str) -> AsyncIterator[bytes]:
    with _told(address):
        async for block in response.aiter_raw():
            yield block


def _answer(response: httpx.Response, what: str, offset: int, linked: Mapping[str, str]) -> Answer:
    status, headers = response.status_code, response.headers
    if status == 416 and offset:
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        raise NothingLeft(int(found[3]) if found and found[3] != "*" else 0)
    if status not in (200, 206):
        raise refusal(status, {name.lower(): value for name, value in headers.items()}, what)
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise DownloadFailed(f"The hub compresses {what} although it was asked not to.")
    start, total = 0, _length(headers.get("content-length"))
    if status == 206:
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if found is None or found[1] is None:
            raise DownloadFailed(f"The hub's answer does not say which part of {what} it is.")
        start, total = int(found[1]), 0 if found[3] == "*" else int(found[3])
    etag = headers.get("etag", "")
    return Answer(
        start=start,
        total=total,
        etag="" if etag.startswith("W/") else etag,
        linked=_checksum(linked.get("x-linked-etag", "")) or _checksum(linked.get("etag", "")),
        blocks=_blocks(response, str(response.request.url)),
    )


def _length(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


def _checksum(etag: str) -> str:
    bare = etag.removeprefix("W/").strip('"').lower()
    return bare if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", bare) else ""


def _same(url: str, other: str) -> bool:
    """Whether two addresses have scheme, host and port in common."""
    return _origin(url) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _next(url: str, location: str) -> str:
    """Where a redirect leads. Raises DownloadFailed where nobody should follow."""
    if not location:
        raise DownloadFailed("The hub redirects without saying where to.")
    target = urljoin(url, location)
    try:
        scheme = urlsplit(target).scheme
    except ValueError:
        scheme = ""
    if scheme not in ("http", "https"):
        raise DownloadFailed("The hub redirects to an address that is none.")
    if scheme == "http" and url.startswith("https:"):
        raise DownloadFailed(
            "The hub redirects from https to http, where anybody on the way could change the file.",
            hint="It is not followed. Use another hub or mirror.",
        )
    return target
