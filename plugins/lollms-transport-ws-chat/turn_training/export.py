"""Writes the network as one ONNX file with its vocabulary; embeddings as float16, which halves it."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import onnx
import torch
from torch import nn

from lollms_transport_ws_chat.turn_detection.embedded import MODEL, VOCABULARY
from lollms_transport_ws_chat.turn_detection.features import featurised

from .model import TurnNetwork
from .sets import DEVELOPMENT, HERE, read_set
from .train import Trained

TARGET = HERE.parent / "src" / "lollms_transport_ws_chat" / "turn_detection" / "models" / MODEL
REFERENCE = HERE / "reference.json"
MAX_BYTES = 1_000_000


class _Probabilities(nn.Module):
    def __init__(self, network: TurnNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, words: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.network(words, whole))


class _HalfEmbedding(nn.Module):
    """An embedding stored in half the room."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = nn.Parameter(embedding.weight.detach().half(), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(ids, self.weight).float()


def probabilities(trained: Trained, turns: list[tuple[list[list[int]], list[int]]]) -> list[float]:
    """What the trained network says, before any export."""
    words, whole = torch.tensor([w for w, _ in turns]), torch.tensor([g for _, g in turns])
    with torch.no_grad():
        found: list[float] = torch.sigmoid(trained.network.eval()(words, whole)).tolist()
    return found


def export(trained: Trained, target: Path = TARGET) -> None:
    """The ONNX file, and what the network said before, for the test that compares both."""
    turns = [labelled.turns for labelled in read_set(DEVELOPMENT / "en.txt")]
    said = probabilities(trained, [featurised(t, trained.vocabulary) for t in turns])
    network = trained.network.eval()
    network.word = _HalfEmbedding(network.word)
    network.suffix = _HalfEmbedding(network.suffix)
    example = featurised(turns[0], trained.vocabulary)
    buffer = io.BytesIO()
    torch.onnx.export(
        _Probabilities(network).eval(),
        (torch.tensor([example[0]]), torch.tensor([example[1]])),
        buffer,
        dynamo=False,
        opset_version=17,
        input_names=["words", "whole"],
        output_names=["probability"],
        dynamic_axes={"words": {0: "batch"}, "whole": {0: "batch"}, "probability": {0: "batch"}},
    )
    model = onnx.load_from_string(buffer.getvalue())
    model.ir_version = 9
    entry = model.metadata_props.add()
    entry.key, entry.value = VOCABULARY, "\n".join(trained.vocabulary)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    assert len(content) <= MAX_BYTES, f"{len(content):,} bytes"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)
    reference = {
        "stages": trained.stages,
        "sha256": hashlib.sha256(content).hexdigest(),
        "turns": [[[turn.role, turn.content] for turn in t] for t in turns],
        "probabilities": [round(p, 6) for p in said],
    }
    REFERENCE.write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")
