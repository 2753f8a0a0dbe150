"""Images that a client names by their address, fetched without letting it reach into this network.

Anybody who may send a request could otherwise make the server read `http://169.254.169.254/…` or a printer's page
(server-side request forgery). So a name is resolved first, every address that it has must be a public one, the
connection goes to exactly the address that was checked, and each redirect goes through the same door.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import msgspec

from ..errors import InvalidRequest, LollmsError, PayloadTooLarge, UnsupportedInput
from ..types import GenerateRequest, Media, Message

if TYPE_CHECKING:
    import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_ADDRESS_LENGTH = 4096
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SIGNATURES = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
}


def is_public(address: Address) -> bool:
    """Whether this is the address of a machine on the internet, also behind IPv6's ways of writing IPv4."""
    inner = _embedded_ipv4(address)
    if inner is not None:
        return is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _embedded_ipv4(address: Address) -> Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


async def resolve(host: str, port: int) -> list[Address]:
    """Every address of a host name, as the system's resolver gives them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


class ImageFetcher:
    """Fetches PNG, JPEG, GIF and WebP images of at most `max_bytes` from public addresses."""

    def __init__(
        self,
        *,
        max_bytes: int = 20 << 20,
        timeout: float = 20.0,
        max_redirects: int = 3,
        resolve: Callable[[str, int], Awaitable[Sequence[Address]]] = resolve,
        permits: Callable[[Address], bool] = is_public,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._max_redirects = max_redirects
        self._resolve = resolve
        self._permits = permits

    async def fetch(self, url: str) -> tuple[bytes, str]:
        """The image and its MIME type. Raises InvalidRequest, UnsupportedInput or PayloadTooLarge."""
        import httpx

        try:
            async with asyncio.timeout(self._timeout):
                for _ in range(self._max_redirects + 1):
                    found = await self._visit(url)
                    if not isinstance(found, str):
                        return found
                    url = found
        except TimeoutError:
            raise _refused(f"it did not come within {self._timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError):
            raise _refused("nothing there answers properly") from None
        raise _refused("it redirects too often")

    async def _visit(self, url: str) -> str | tuple[bytes, str]:
        """The image, or the address that this one redirects to."""
        import httpx

        parts, host, port = _read_address(url)
        address = await self._checked(host, port)
        literal = f"[{address}]" if address.version == 6 else str(address)
        request = httpx.Request(
            "GET",
            urlunsplit((parts.scheme, f"{literal}:{port}", parts.path or "/", parts.query, "")),
            headers={"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity"},
            extensions={"sni_hostname": host},
        )
        # In a thread, because loading the certificates of authorities takes a while.
        client = await asyncio.to_thread(httpx.AsyncClient, follow_redirects=False, timeout=self._timeout)
        async with client, aclosing(await client.send(request, stream=True)) as response:
            if response.is_redirect and "location" in response.headers:
                return urljoin(url, response.headers["location"])
            if response.status_code != 200:
                raise _refused(f"the server there answers {response.status_code}")
            data = await self._read(response)
        mime_type = _image_type(data)
        if mime_type is None:
            raise UnsupportedInput(
                "What the image's address leads to is no PNG, JPEG, GIF or WebP image.",
                hint="Send the image itself as base64 or as a data: URL.",
            )
        return data, mime_type

    async def _checked(self, host: str, port: int) -> Address:
        addresses = await self._resolve(host, port)
        if not addresses or not all(map(self._permits, addresses)):
            raise _refused("only addresses on the internet are fetched")
        return addresses[0]

    async def _read(self, response: httpx.Response) -> bytes:
        data = bytearray()
        async for piece in response.aiter_raw():
            data += piece
            if len(data) > self._max_bytes:
                raise PayloadTooLarge(
                    f"The image at the given address is larger than {self._max_bytes >> 20} MiB."
                )
        return bytes(data)


def _read_address(url: str) -> tuple[SplitResult, str, int]:
    try:
        if len(url) > MAX_ADDRESS_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError
    except ValueError:
        raise _refused("it is no plain http or https address") from None
    return parts, parts.hostname, port


def _image_type(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for kind, starts in _SIGNATURES.items() if data.startswith(starts)), None)


def _refused(reason: str) -> LollmsError:
    return InvalidRequest(
        f"The image's address was not fetched: {reason}.",
        hint="Send the image itself as base64 or as a data: URL.",
    )


# --- in requests ------------------------------------------------------------------------------------------------


async def fetch_images(
    request: GenerateRequest, allowed: bool, fetcher: ImageFetcher | None = None
) -> GenerateRequest:
    """The request with every image that is only an address replaced by what is there.

    Raises UnsupportedInput where there is one and `allowed` (the instance's `fetch_image_urls`) is false.
    """
    if not any(map(image_address, request.media)):
        return request
    if not allowed:
        raise UnsupportedInput(
            "This instance does not fetch images from addresses.",
            hint="Send the image itself as base64 or as a data: URL, or set `fetch_image_urls` of the instance.",
        )
    fetcher = fetcher or ImageFetcher()
    messages = [await _with_images(message, fetcher) for message in request.messages]
    return msgspec.structs.replace(request, messages=tuple(messages))


def image_address(item: Media) -> str | None:
    """The address, if this image is one instead of an image."""
    if item.type == "image" and item.data[:8].lower().startswith((b"http://", b"https://")):
        return item.data.decode(errors="replace").strip()
    return None


async def _with_images(message: Message, fetcher: ImageFetcher) -> Message:
    media = []
    for item in message.media:
        address = image_address(item)
        if address is not None:
            data, mime_type = await fetcher.fetch(address)
            item = msgspec.structs.replace(item, data=data, mime_type=mime_type)
        media.append(item)
    return msgspec.structs.replace(message, media=tuple(media))
