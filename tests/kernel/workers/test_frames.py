"""Frames decode to what was encoded, however the bytes are split, and garbage is an error at once."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lollms_kernel.contracts import BindingContext
from lollms_kernel.types import Chunk, Finished, Output, TextDelta, ThoughtDelta
from lollms_kernel.workers.faults import Fault
from lollms_kernel.workers.frames import (
    Call,
    Cancel,
    Chunks,
    Credit,
    Frame,
    FrameDecoder,
    FrameError,
    FrameTooLarge,
    Ping,
    Pong,
    Raised,
    Ready,
    Result,
    encode,
    pack,
)
from lollms_kernel.workers.methods import METHODS, Opening, chunks_of

ids = st.integers(0, 2**63)
texts = st.text(max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
payloads = values.map(pack)
chunks: st.SearchStrategy[Chunk] = st.one_of(
    st.builds(TextDelta, texts),
    st.builds(ThoughtDelta, texts, st.integers(0, 9), st.sampled_from(["", "closed"])),
    st.builds(Output, texts, values),
    st.just(Finished()),
)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Call, ids, texts, payloads),
    st.builds(Cancel, ids),
    st.builds(Credit, ids, st.integers(0, 2**31)),
    st.just(Ping()),
    st.builds(Pong, st.none() | st.integers(0, 2**63 - 1)),
    st.builds(Ready, st.integers(0, 9)),
    st.builds(Chunks, ids, st.lists(chunks, max_size=4).map(pack)),
    st.builds(Result, ids, payloads),
    st.builds(Raised, ids, st.builds(Fault, texts, texts, st.none() | texts, st.none() | st.floats(0, 9))),
)


patient = settings(deadline=None)
"""No test measures speed."""


def in_pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@patient
@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_of_any_frames_gives_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    decoder = FrameDecoder()

    received = [f for piece in in_pieces(b"".join(map(encode, sent)), cuts) for f in decoder.feed(piece)]

    assert received == sent


@patient
@given(st.lists(frames, min_size=1, max_size=3))
def test_bytes_one_by_one_give_the_same_frames(sent: list[Frame]) -> None:
    decoder = FrameDecoder()

    received = [f for byte in b"".join(map(encode, sent)) for f in decoder.feed(bytes([byte]))]

    assert received == sent


@patient
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_garbage_gives_frames_or_a_frame_error_and_nothing_else(data: bytes, cuts: list[int]) -> None:
    decoder = FrameDecoder(limit=1000)

    try:
        for piece in in_pieces(data, cuts):
            decoder.feed(piece)
    except FrameError:
        pass


@patient
@given(st.binary(max_size=60))
def test_a_garbled_body_gives_a_frame_or_a_frame_error(body: bytes) -> None:
    data = struct.pack(">I", len(body)) + body

    try:
        (frame,) = FrameDecoder().feed(data)
    except FrameError:
        return
    assert isinstance(frame, Frame)


@patient
@given(st.sampled_from(sorted(METHODS)), st.binary(max_size=60))
def test_a_garbled_payload_gives_a_value_or_a_frame_error(method: str, payload: bytes) -> None:
    for decode in (METHODS[method].arguments, METHODS[method].value, chunks_of):
        try:
            decode(msgspec.Raw(payload))
        except FrameError:
            continue


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",  # an array that claims four thousand million items
        b"\x93\xa4call\x01\xdf\xff\xff\xff\xff",
        b"\x93\xa6result\x01\xc6\xff\xff\xff\xff",
        b"\x93\xa6result\x01" + b"\x91" * 100_000,
    ],
)
def test_garbage_that_claims_to_be_large_takes_no_memory(body: bytes) -> None:
    data = struct.pack(">I", len(body)) + body
    decoder = FrameDecoder()

    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            decoder.feed(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000


def test_an_oversize_frame_is_refused_by_its_header_alone() -> None:
    decoder = FrameDecoder(limit=1000)

    with pytest.raises(FrameTooLarge, match="1001 bytes is larger than the limit of 1000"):
        decoder.feed(struct.pack(">I", 1001))


def test_a_frame_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    frame = Result(1, pack(b"x" * 100))
    size = len(encode(frame)) - 4

    assert FrameDecoder(size).feed(encode(frame, size)) == [frame]
    with pytest.raises(FrameTooLarge):
        encode(frame, size - 1)


@pytest.mark.parametrize("value", [object(), 2**70, "\ud800", {1: {2: object()}}])
def test_a_value_that_msgpack_cannot_say_is_a_frame_error(value: object) -> None:
    with pytest.raises(FrameError):
        pack(value)


def test_paths_travel_as_text_and_arrive_as_paths() -> None:
    opening = Opening(settings={}, context=BindingContext(models_folder=Path("a/b"), root=Path("/")))

    (received,) = METHODS["open"].arguments(pack((opening,)))

    assert received == opening
