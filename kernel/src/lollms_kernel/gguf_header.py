"""Reads what a GGUF file says about itself, without an engine and without trusting the file.

Only the header is read: key-value pairs and the list of tensors. Every length is checked against the file's size
and against fixed limits, so a damaged or hostile file costs little and ends in GgufError.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import stat
import struct
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

MAX_HEADER = 64 * 2**20
"""The largest known vocabularies make headers of about 20 MiB."""
MAX_KEY = 65_535
MAX_STRING = 2**20
"""Longer strings (an embedded tokenizer file, for example) are passed over."""
MAX_DIMENSIONS = 8
MAX_NESTING = 4
WINDOW = 2**20

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9

TENSOR_TYPES = (
    "F32 F16 Q4_0 Q4_1 - - Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL "
    "IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 - - - TQ1_0 TQ2_0 - - - MXFP4 NVFP4 Q1_0"
).split()
"""ggml's tensor types, by number."""

FILE_TYPES = (
    "F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ2_XXS "
    "IQ2_XS Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M BF16 - - - TQ1_0 TQ2_0 "
    "MXFP4_MOE NVFP4 Q1_0"
).split()
"""What `general.file_type` means, by number: the recipe that chose the tensor types."""


_CLASSIFIERS = ("cls.weight", "cls.output.weight")


class GgufError(Exception):
    """The file is not a GGUF file that can be used; the text says what is wrong with it."""


class GgufHeader(msgspec.Struct, frozen=True):
    """Key-value pairs (arrays only by their length) and how many weights there are of each tensor type."""

    values: dict[str, Any]
    lengths: dict[str, int]
    elements: dict[str, int]
    classifies: bool = False
    """Whether it has a head that scores whole texts, as rerankers have."""

    def text(self, key: str) -> str | None:
        """A string value, None if absent or of another type."""
        value = self.values.get(key)
        return value if isinstance(value, str) and value else None

    def number(self, key: str) -> int | None:
        """A non-negative integer, None if absent or anything else."""
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    @property
    def architecture(self) -> str | None:
        """Such as "llama"; also the prefix of the model's own keys."""
        return self.text("general.architecture")

    def own(self, key: str) -> int | None:
        """An integer of the architecture, e.g. `own("context_length")` reads `llama.context_length`."""
        return self.number(f"{self.architecture}.{key}")


def read_header(path: Path) -> GgufHeader:
    """The header of one file. Raises GgufError, or OSError where the file cannot be read."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise GgufError("It is not a regular file.")  # opening a pipe would wait for its other end
    with path.open("rb") as file:
        return _Parser(file, path.stat().st_size).header()


class _Parser:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._limit = min(size, MAX_HEADER)
        self._window = b""
        self._start = 0  # where the window begins in the file
        self._at = 0  # the next byte, counted from there

    def header(self) -> GgufHeader:
        if self._take(4) != b"GGUF":
            raise GgufError("It does not begin with the letters GGUF.")
        version = self._u32()
        if version not in (2, 3):
            raise GgufError(
                "It is big-endian."
                if version in (2 << 24, 3 << 24)
                else f"It has GGUF version {version}; 2 and 3 are known."
            )
        n_tensors, n_values = self._u64(), self._u64()
        values: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        self._check_count(n_values, 12)
        for _ in range(n_values):
            key = self._key()
            kind = self._u32()
            if kind == _ARRAY:
                lengths[key] = self._pass_array(1)
            elif (value := self._value(kind)) is not None:
                values[key] = value
        elements, classifies = self._tensors(n_tensors)
        return GgufHeader(values, lengths, elements, classifies)

    def _tensors(self, count: int) -> tuple[dict[str, int], bool]:
        elements: Counter[str] = Counter()
        self._check_count(count, 24)
        classifies = False
        for _ in range(count):
            classifies = self._key() in _CLASSIFIERS or classifies
            dimensions = self._u32()
            if dimensions > MAX_DIMENSIONS:
                raise GgufError(f"A tensor has {dimensions} dimensions.")
            size = 1
            for _ in range(dimensions):
                size *= self._u64()
            kind = self._u32()
            self._pass(8)
            elements[TENSOR_TYPES[kind] if kind < len(TENSOR_TYPES) else f"type {kind}"] += size
        return dict(elements), classifies

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            length = self._u64()
            if length > MAX_STRING:
                self._pass(length)
                return None
            return self._take(length).decode("utf-8", "replace")
        scalar = self._scalar(kind)
        return scalar.unpack(self._take(scalar.size))[0]

    def _pass_array(self, depth: int) -> int:
        kind, count = self._u32(), self._u64()
        if kind == _STRING:
            self._pass_strings(count)
        elif kind == _ARRAY:
            if depth >= MAX_NESTING:
                raise GgufError("Arrays are nested too deeply.")
            self._check_count(count, 12)
            for _ in range(count):
                self._pass_array(depth + 1)
        else:
            self._pass(count * self._scalar(kind).size)
        return count

    def _pass_strings(self, count: int) -> None:
        self._check_count(count, 8)
        unpack = _U64.unpack_from
        while count:
            self._need(8)
            window, at, last = self._window, self._at, len(self._window) - 8
            while (
                count and at <= last
            ):  # vocabularies have hundreds of thousands of entries: no call for each
                at += 8 + unpack(window, at)[0]
                count -= 1
            self._pass(at - self._at)

    def _key(self) -> str:
        length = self._u64()
        if length > MAX_KEY:
            raise GgufError(f"A name is {length} bytes long.")
        return self._take(length).decode("utf-8", "replace")

    def _scalar(self, kind: int) -> struct.Struct:
        try:
            return _SCALARS[kind]
        except KeyError:
            raise GgufError(f"A value has the unknown type {kind}.") from None

    def _u32(self) -> int:
        return int(_U32.unpack(self._take(4))[0])

    def _u64(self) -> int:
        return int(_U64.unpack(self._take(8))[0])

    def _check_count(self, count: int, least: int) -> None:
        """`count` entries of at least `least` bytes each must still fit, before anybody loops over them."""
        self._check_room(count * least)

    def _check_room(self, length: int) -> None:
        if self._start + self._at + length > self._limit:
            if self._limit < self._size:
                raise GgufError(f"Its header is longer than {MAX_HEADER >> 20} MiB.")
            raise GgufError("It ends within its header: it is damaged, or not completely copied.")

    def _take(self, length: int) -> bytes:
        self._need(length)
        self._at += length
        return self._window[self._at - length : self._at]

    def _pass(self, length: int) -> None:
        self._check_room(length)
        self._at += length

    def _need(self, length: int) -> None:
        self._check_room(length)
        if self._at + length > len(self._window):
            self._start += self._at
            self._at = 0
            self._file.seek(self._start)
            self._window = self._file.read(max(length, WINDOW))
            if len(self._window) < length:  # it became shorter meanwhile
                raise GgufError("It ends within its header: it is damaged, or not completely copied.")
