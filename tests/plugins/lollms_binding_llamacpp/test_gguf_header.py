"""The GGUF header reader, on good files and on hostile ones."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from lollms_binding_llamacpp.gguf_header import MAX_HEADER, GgufError, read_header


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: bytes) -> bytes:
    return u64(len(text)) + text


def file_with(body: bytes, *, version: int = 3, tensors: int = 0, values: int = 1) -> bytes:
    return b"GGUF" + u32(version) + u64(tensors) + u64(values) + body


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "file.gguf"


def test_a_real_file_is_read(make_model: Callable[..., Path]) -> None:
    header = read_header(make_model())
    assert header.architecture == "llama"
    assert header.text("general.name") == "Alphabet"
    assert header.own("context_length") == 512
    assert header.own("block_count") == 2
    assert header.lengths["tokenizer.ggml.tokens"] == 264
    assert "<|im_start|>" in (header.text("tokenizer.chat_template") or "")
    assert header.elements == {"F32": 264 * 288 * 2 + 288 + 2 * (4 * 288 * 288 + 3 * 288 * 32 + 2 * 288)}


def test_every_kind_of_value_is_understood(place: Path) -> None:
    values = [
        (0, b"\xff", 255),
        (1, b"\xff", -1),
        (2, b"\xff\xff", 65535),
        (3, b"\xff\xff", -1),
        (4, u32(7), 7),
        (5, b"\xff" * 4, -1),
        (6, struct.pack("<f", 0.5), 0.5),
        (7, b"\1", True),
        (8, string("é".encode()), "é"),
        (10, u64(2**63), 2**63),
        (11, b"\xff" * 8, -1),
        (12, struct.pack("<d", 0.1), 0.1),
    ]
    body = b"".join(string(b"k%d" % kind) + u32(kind) + data for kind, data, _ in values)
    place.write_bytes(file_with(body, values=len(values)))
    assert read_header(place).values == {f"k{kind}": value for kind, _, value in values}


def test_arrays_are_passed_over_by_their_length(place: Path) -> None:
    nested = u32(9) + u64(2) + (u32(0) + u64(2) + b"ab") * 2
    words = u32(8) + u64(300_000) + string(b"word") * 300_000  # longer than what is read at once
    body = (
        string(b"nested")
        + u32(9)
        + nested
        + string(b"words")
        + u32(9)
        + words
        + string(b"after")
        + u32(4)
        + u32(1)
    )
    place.write_bytes(file_with(body, values=3))
    header = read_header(place)
    assert header.lengths == {"nested": 2, "words": 300_000}
    assert header.values == {"after": 1}


def test_a_long_text_is_passed_over(place: Path) -> None:
    body = string(b"big") + u32(8) + string(b"x" * 2**21) + string(b"after") + u32(4) + u32(1)
    place.write_bytes(file_with(body, values=2))
    assert read_header(place).values == {"after": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGU",
        b"PK\x03\x04" + bytes(100),
        b"GGUF" + u32(1) + bytes(16),
        b"GGUF\x00\x00\x00\x03" + bytes(16),
        file_with(b"", values=2**64 - 1),
        file_with(b"", tensors=2**64 - 1, values=0),
        file_with(string(b"k") + u32(99) + bytes(8)),
        file_with(u64(2**64 - 1) + b"k"),
        file_with(u64(70_000) + b"k" * 70_000),
        file_with(string(b"k") + u32(8) + u64(2**64 - 1)),
        file_with(string(b"k") + u32(9) + u32(4) + u64(2**62)),
        file_with(string(b"k") + u32(9) + u32(8) + u64(2**61) + bytes(64)),
        file_with(string(b"k") + u32(9) + u32(8) + u64(2) + u64(2**64 - 1) + bytes(64)),
        file_with(string(b"k") + u32(9) + (u32(9) + u64(1)) * 5000),
        file_with(string(b"t") + u32(2**31) + bytes(64), tensors=1, values=0),
        file_with(string(b"k") + u32(8) + string(b"cut")[:-1]),
    ],
)
def test_what_is_no_usable_gguf_file_is_told_so(place: Path, data: bytes) -> None:
    place.write_bytes(data)
    with pytest.raises(GgufError):
        read_header(place)


def test_a_header_may_not_be_endless(place: Path) -> None:
    place.write_bytes(file_with(string(b"k") + u32(9) + u32(0) + u64(MAX_HEADER)))
    os.truncate(place, 2 * MAX_HEADER)
    with pytest.raises(GgufError, match="longer than"):
        read_header(place)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(GgufError, match="regular"):
        read_header(tmp_path / "pipe.gguf")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    cut=some.integers(0, 12_000),
    change=some.tuples(some.integers(0, 12_000), some.binary(min_size=1, max_size=9)),
)
def test_damage_anywhere_is_survived(place: Path, sound: bytes, cut: int, change: tuple[int, bytes]) -> None:
    at, data = change
    damaged = (sound[:at] + data + sound[at + len(data) :])[: len(sound) - cut]
    place.write_bytes(damaged)
    try:
        header = read_header(place)
    except GgufError as error:
        assert str(error)
    else:
        assert isinstance(header.values, dict)


@pytest.fixture(scope="module")
def sound() -> bytes:
    keys = b"".join(string(b"key%d" % n) + u32(4) + u32(n) for n in range(200))
    words = string(b"words") + u32(9) + u32(8) + u64(200) + b"".join(string(b"w" * n) for n in range(200))
    tensors = b"".join(
        string(b"tensor%d" % n) + u32(2) + u64(32) + u64(n) + u32(n % 9) + u64(0) for n in range(50)
    )
    return file_with(keys + words + tensors, tensors=50, values=201)
