"""What names of models and files tell."""

from __future__ import annotations

import pytest

from lollms_kernel.quantization import choose, offered, quantization_of, shards_of
from lollms_transport_wingman.control.objects import in_units
from lollms_transport_wingman.control.sizes import (
    bits_of,
    is_split,
    memory_needed,
    parameters_of,
    quantization_name,
    size_of,
)


@pytest.mark.parametrize(
    ("file", "quantization"),
    [
        ("xwin.Q2_K.gguf", "Q2_K"),
        ("Llama-3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("x.IQ3_XXS.gguf", "IQ3_XXS"),
        ("m-f16.gguf", "F16"),
        ("qwen-7b-f16.gguf", "F16"),
        ("qwen2.5-7b-instruct-q4_0.gguf", "Q4_0"),
        ("model.BF16.gguf", "BF16"),
        ("model-fp16.gguf", "FP16"),
        ("deep/folder/m-UD-Q4_K_XL.gguf", "Q4_K_XL"),
        ("m.TQ1_0.gguf", "TQ1_0"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("big-Q8_0-00001-of-00003.gguf", "Q8_0"),
        ("qwen-7b.gguf", None),
        ("README.md", None),
        ("Q4_K_M.txt", None),
    ],
)
def test_quantizations(file: str, quantization: str | None) -> None:
    assert quantization_of(file) == quantization


@pytest.mark.parametrize(
    ("quantization", "name", "bits"),
    [
        ("Q4_K_M", "4 K M", 4.0),
        ("Q4_0", "4.0", 4.0),
        ("F16", "FP16", 16.0),
        ("FP16", "FP16", 16.0),
        ("F32", "FP32", 32.0),
        ("IQ3_XXS", "3 XXS", 3.0),
        ("IQ1_S", "1 S", 1.58),
        ("Q64", "64", None),
        ("NONE", "", None),
    ],
)
def test_names_and_bits(quantization: str, name: str, bits: float | None) -> None:
    assert (quantization_name(quantization), bits_of(quantization)) == (name, bits)


@pytest.mark.parametrize(
    ("name", "size", "billions"),
    [
        ("TheBloke/Xwin-LM-13B-V0.1", "13B", 13),
        ("mistral/Mixtral-8x7b", "8x7B", 56),
        ("a/tiny-500m", "500M", 0.5),
        ("a/phi-2", "2.8B", 2.8),
        ("a/Phi-3-mini", "3.8B", 3.8),
        ("a/OpenChat-3.5", "7B", 7),
        ("a/something", "8B", 8),
    ],
)
def test_sizes(name: str, size: str, billions: float) -> None:
    assert size_of(name) == size
    assert parameters_of(size) == pytest.approx(billions)


def test_memory() -> None:
    assert memory_needed("8B", 4.0) == 4096
    assert memory_needed("8x7B", 16.0) == 114688
    assert memory_needed("500M", 8.0) == 512
    assert memory_needed("8B", None) == -1
    assert is_split("a-split-b.gguf")
    assert is_split("m-00001-of-00002.gguf")
    assert not is_split("m.gguf")


def test_what_is_chosen() -> None:
    files = [
        "m-Q8_0.gguf",
        "m-Q4_0.gguf",
        "mmproj-m-f16.gguf",
        "b-Q2_K-00001-of-00002.gguf",
        "b-Q2_K-00002-of-00002.gguf",
    ]

    assert choose(files, None) == ["m-Q4_0.gguf"]
    assert choose(files, "Q2_K") == files[3:]
    assert choose(files, "F16") == [], "a projector is no model"
    assert choose(["plain.gguf"], None) == ["plain.gguf"]
    assert offered(files) == ["Q2_K", "Q4_0", "Q8_0"]
    assert shards_of("b-Q2_K-00001-of-00002.gguf", files) == files[3:]


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (17, "17 B"),
        (1023, "1023 B"),
        (1024, "1.0 KB"),
        (12_897_484, "12.3 MB"),
        (5 << 40, "5.0 TB"),
    ],
)
def test_units(count: int, shown: str) -> None:
    assert in_units(count) == shown
