"""Images by address: nobody reaches into this network through the server."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lollms_kernel.dummy import small_png
from lollms_kernel.errors import InvalidRequest, LollmsError, PayloadTooLarge, UnsupportedInput
from lollms_kernel.types import GenerateRequest, Media, Message
from lollms_kernel.upstream import ImageFetcher, fetch_images
from lollms_kernel.upstream.images import Address, is_public

PNG = small_png(0x336699)


def response(body: bytes = PNG, status: str = "200 OK", **headers: str) -> bytes:
    fields = {"content_length": str(len(body)), "connection": "close", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


@asynccontextmanager
async def serving(answer: Callable[[str], bytes]) -> AsyncIterator[tuple[int, list[str]]]:
    """A server on a real socket; gives its port and the requests that it has seen. An empty answer is silence."""
    seen: list[str] = []
    handled: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.append(request)
        writer.write(answer(request.split()[1]))
        await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handled.append(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen
        await asyncio.wait_for(asyncio.gather(*handled), 30)


def loopback_allowed(**options: object) -> ImageFetcher:
    """Like the real one, except that this machine counts as the internet."""

    async def here(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address(host if host[0].isdigit() else "127.0.0.1")]

    def permits(address: Address) -> bool:
        return address == ipaddress.ip_address("127.0.0.1")

    return ImageFetcher(resolve=here, permits=permits, **options)  # type: ignore[arg-type]


async def test_an_image_comes_with_its_real_type_and_the_server_sees_its_own_name() -> None:
    async with serving(lambda _: response(content_type="text/plain")) as (port, seen):
        data, mime_type = await loopback_allowed().fetch(f"http://images.example:{port}/a.png?x=1")

    assert (data, mime_type) == (PNG, "image/png")
    assert seen[0].startswith("GET /a.png?x=1 HTTP/1.1")
    assert f"host: images.example:{port}" in seen[0].lower()


async def test_redirects_are_followed_and_checked_each_time() -> None:
    def answer(path: str) -> bytes:
        if path == "/start":
            return response(b"", "302 Found", location="/end")
        if path == "/inside":
            return response(b"", "302 Found", location="http://10.0.0.1/secret")
        return response()

    async with serving(answer) as (port, seen):
        fetcher = loopback_allowed()
        assert (await fetcher.fetch(f"http://a.example:{port}/start"))[0] == PNG
        with pytest.raises(InvalidRequest, match="only addresses on the internet"):
            await fetcher.fetch(f"http://a.example:{port}/inside")
    assert len(seen) == 3


async def test_endless_redirects_end() -> None:
    async with serving(lambda _: response(b"", "302 Found", location="/again")) as (port, seen):
        with pytest.raises(InvalidRequest, match="redirects too often"):
            await loopback_allowed(max_redirects=2).fetch(f"http://a.example:{port}/")
    assert len(seen) == 3


async def test_what_is_too_large_is_left_off() -> None:
    async with serving(lambda _: response(PNG + bytes(4096))) as (port, _):
        with pytest.raises(PayloadTooLarge):
            await loopback_allowed(max_bytes=1024).fetch(f"http://a.example:{port}/")


async def test_what_is_no_image_is_refused_whatever_it_calls_itself() -> None:
    async with serving(lambda _: response(b"root:x:0", content_type="image/png")) as (port, _):
        with pytest.raises(UnsupportedInput):
            await loopback_allowed().fetch(f"http://a.example:{port}/")


async def test_a_server_that_never_answers_is_left() -> None:
    async with serving(lambda _: b"") as (port, _):
        with pytest.raises(InvalidRequest, match="did not come within"):
            await loopback_allowed(timeout=0.2).fetch(f"http://a.example:{port}/")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost:9601/",
        "http://[::1]/",
        "http://0.0.0.0/",
        "http://10.1.2.3/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[2002:7f00:1::]/",
        "http://[64:ff9b::7f00:1]/",
        "http://224.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
    ],
)
async def test_private_addresses_in_all_their_spellings_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        await ImageFetcher(timeout=10).fetch(url)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "ftp://a.example/",
        "gopher://a.example",
        "http://",
        "http://user:pw@a.example/",
        "http://a b/",
        "http://a.example:99999/",
        "http://a.example/\r\nX: y",
        "http://ä.example/",
        "x",
    ],
)
async def test_what_is_no_plain_http_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="no plain http"):
        await loopback_allowed().fetch(url)


async def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    async def both(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address("93.184.215.14"), ipaddress.ip_address("192.168.0.7")]

    with pytest.raises(InvalidRequest, match="only addresses on the internet"):
        await ImageFetcher(resolve=both).fetch("http://rebinding.example/")


@given(st.ip_addresses(v=4))
def test_ipv4_inside_ipv6_is_as_public_as_itself(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    for prefix, shift in (
        (0xFFFF << 32, 0),
        (int(ipaddress.ip_address("64:ff9b::")), 0),
        (0x2002 << 112, 80),
    ):
        wrapped = ipaddress.IPv6Address(prefix | number << shift)
        assert is_public(wrapped) == is_public(inner)


@given(st.text(max_size=60))
async def test_no_text_breaks_it(text: str) -> None:
    async def nowhere(host: str, port: int) -> list[Address]:
        return []

    with pytest.raises(LollmsError):
        await ImageFetcher(resolve=nowhere).fetch("http://" + text)


# --- in requests --------------------------------------------------------------------------------------------


def request_with(data: bytes) -> GenerateRequest:
    media = Media("image", "input_image", data)
    return GenerateRequest(id="1", messages=(Message("user", "What is this?", (media,)),))


async def test_images_that_are_images_pass_unchanged() -> None:
    request = request_with(PNG)

    assert await fetch_images(request, allowed=False) is request


async def test_an_address_is_refused_unless_the_operator_allows_it() -> None:
    with pytest.raises(UnsupportedInput, match="does not fetch"):
        await fetch_images(request_with(b"https://a.example/x.png"), allowed=False)


async def test_an_allowed_address_becomes_the_image() -> None:
    async with serving(lambda _: response()) as (port, _):
        request = request_with(f"http://a.example:{port}/x.png".encode())
        got = await fetch_images(request, allowed=True, fetcher=loopback_allowed())

    assert (got.media[0].data, got.media[0].mime_type) == (PNG, "image/png")
