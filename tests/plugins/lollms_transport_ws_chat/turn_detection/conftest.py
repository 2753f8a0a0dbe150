"""A turn-detector folder in the LiveKit layout, a few hundred bytes that every test may change."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} {{ message['content'] }} <|im_end|> "
    "{% endfor %}"
)
WORDS = {
    "<|unknown|>": 0.3,
    "<|im_start|>": 0.01,
    "<|im_end|>": 0.02,
    "user": 0.01,
    "assistant": 0.01,
    "hello": 0.2,
    "please": 0.5,
    "to": 0.0005,
    "okay": 0.02,
    "London": 0.04,
    "london": 0.05,
    "the": 0.0001,
}
"""Each word, and the probability that a turn ends after it."""


PLUGIN = Path(__file__).parents[4] / "plugins" / "lollms-transport-ws-chat"


@pytest.fixture(scope="session")
def training() -> Callable[[str], ModuleType]:
    """Imports a module of the training package, which no environment has installed."""

    def module(name: str) -> ModuleType:
        sys.path.insert(0, str(PLUGIN))
        try:
            return importlib.import_module(f"turn_training.{name}")
        finally:
            sys.path.remove(str(PLUGIN))

    return module


def save_model(file: Path, values: list[float], *, input_name: str = "input_ids") -> None:
    """A model of one row of probabilities: `[1, seq]` out of `[1, seq]`."""
    table = numpy_helper.from_array(np.array(values, np.float32), "table")
    node = helper.make_node("Gather", ["table", input_name], ["probabilities"])
    graph = helper.make_graph(
        [node],
        "turns",
        [helper.make_tensor_value_info(input_name, TensorProto.INT64, [1, "sequence"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, "sequence"])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file.parent.mkdir(exist_ok=True)
    onnx.save(model, str(file))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder, of one language."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = tmp_path / "turn-detector"
    path.mkdir()
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, "<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_bytes(msgspec.json.encode({"chat_template": TEMPLATE}))
    (path / "languages.json").write_text('{"en": {"threshold": 0.03}}')
    save_model(path / "onnx" / "model_q8.onnx", list(WORDS.values()))
    return path
