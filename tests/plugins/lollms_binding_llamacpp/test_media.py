"""Pictures for a model with a projector."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_binding_llamacpp.library import GUIDE
from lollms_kernel.errors import InvalidRequest, ModelLoadFailed, UnsupportedInput
from lollms_kernel.types import Chunk, Finished, Media, Message, TextDelta

MakeBinding = Callable[..., Awaitable[LlamaCppBinding]]
Ask = Callable[..., Awaitable[list[Chunk]]]
GUIDE_WIDTH = 192


def png(red: int, green: int, blue: int) -> bytes:
    """A picture of 8 × 8 points of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((red, green, blue)) * 8) * 8
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def picture(*colour: int) -> Media:
    return Media("image", "input_image", png(*colour), "image/png")


def seen(chunks: list[Chunk]) -> tuple[float, int, str]:
    """What the model thought of its first token, how long the prompt was, and the answer."""
    first = next(c for c in chunks if isinstance(c, TextDelta) and c.probabilities)
    end = chunks[-1]
    assert isinstance(end, Finished)
    assert end.usage is not None
    text = "".join(c.text for c in chunks if isinstance(c, TextDelta))
    return first.probabilities[0].logprob, end.usage.prompt_tokens, text


@pytest.fixture
async def sees(make_projector: Any, make_binding: MakeBinding) -> LlamaCppBinding:
    make_projector(GUIDE_WIDTH)
    return await make_binding(default_model=GUIDE, mmproj="mmproj.gguf", parallel=4)


PARAMETERS = {"n_probs": 1, "max_tokens": 12, "temperature": 0}


async def test_a_picture_changes_what_the_model_thinks(sees: LlamaCppBinding, ask: Ask) -> None:
    async def look(*media: Media, question: str = "hello") -> tuple[float, int, str]:
        return seen(
            await ask(sees, GUIDE, messages=(Message("user", question, media),), parameters=PARAMETERS)
        )

    none, red, blue = await look(), await look(picture(255, 0, 0)), await look(picture(0, 0, 255))
    assert red[1] == blue[1] == none[1] + 4
    assert len({none[0], red[0], blue[0]}) == 3
    assert await look(picture(255, 0, 0)) == red
    two = await look(picture(255, 0, 0), picture(0, 0, 255))
    assert two[1] == none[1] + 8
    together = await asyncio.gather(*(look(picture(255, 0, 0)) for _ in range(3)), look())
    assert [entry[2] for entry in together] == [red[2]] * 3 + [none[2]]
    info = await sees.get_model_info(GUIDE)
    assert info.input_modalities == ("text", "image")
    facts = await sees.properties(GUIDE)
    assert facts["modalities"] == {"vision": True, "audio": False, "video": False}


async def test_a_raw_prompt_says_where_its_pictures_belong(sees: LlamaCppBinding, ask: Ask) -> None:
    async def raw(text: str, *media: Media) -> tuple[float, int, str]:
        return seen(await ask(sees, GUIDE, raw_prompt=text, raw_media=media, parameters=PARAMETERS))

    plain = await raw("a  b")
    marked = await raw("a <__media__> b", picture(9, 9, 9))
    assert marked[1] == plain[1] + 4
    with pytest.raises(InvalidRequest, match="markers"):
        await raw("a <__media__> b <__media__>", picture(9, 9, 9))
    with pytest.raises(InvalidRequest, match="markers"):
        await raw("a b", picture(9, 9, 9))


async def test_what_is_no_picture_is_refused(sees: LlamaCppBinding, ask: Ask) -> None:
    for data in (b"", b"not a picture", png(1, 2, 3)[:40]):
        bad = Media("image", "input_image", data)
        with pytest.raises(InvalidRequest):
            await ask(sees, GUIDE, messages=(Message("user", "look", (bad,)),))
    sound = Media("audio", "input_audio", b"RIFF")
    with pytest.raises(UnsupportedInput):
        await ask(sees, GUIDE, messages=(Message("user", "listen", (sound,)),))
    fine = await ask(sees, GUIDE, messages=(Message("user", "hello"),))
    assert isinstance(fine[-1], Finished)


async def test_a_projector_that_is_missing_or_damaged_is_named(
    make_binding: MakeBinding, ask: Ask, tmp_path: Any
) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    for name in ("missing.gguf", "broken.gguf"):
        binding = await make_binding(default_model=GUIDE, mmproj=name)
        with pytest.raises(ModelLoadFailed, match=name):
            await ask(binding, GUIDE, messages=(Message("user", "hello"),))
