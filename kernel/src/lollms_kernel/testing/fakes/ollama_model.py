"""The models of the fake Ollama: what is known of them and what they say. A token is a word."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

EMBEDDING_LENGTH = 4


class OllamaModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as `/api/tags` and `/api/show` describe it."""

    name: str
    capabilities: tuple[str, ...] = ("completion", "tools")
    family: str = "llama"
    parameter_size: str = "1.2B"
    quantization_level: str = "Q4_K_M"
    size: int = 1_321_098_329
    context_length: int = 8192
    parameters: dict[str, Any] = {}
    """What its Modelfile sets, e.g. `num_ctx`."""
    template: str = "{{ .Prompt }}"
    license: str = "Apache-2.0"

    @property
    def digest(self) -> str:
        """Changes with everything else."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    @property
    def details(self) -> dict[str, Any]:
        """The part that listing and description share."""
        return {
            "parent_model": "",
            "format": "gguf",
            "family": self.family,
            "families": [self.family, "clip"] if "vision" in self.capabilities else [self.family],
            "parameter_size": self.parameter_size,
            "quantization_level": self.quantization_level,
        }


MODELS = (
    OllamaModel(name="llama3.2:latest"),
    OllamaModel(name="llava:7b", capabilities=("completion", "vision"), parameter_size="7.2B"),
    OllamaModel(name="qwen3:4b", family="qwen3", capabilities=("completion", "tools", "thinking")),
    OllamaModel(name="tiny-context:1b", capabilities=("completion",), parameters={"num_ctx": 32}),
    OllamaModel(name="all-minilm:latest", family="bert", capabilities=("embedding",), context_length=256),
)


class OllamaAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says."""

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    """`{"name": …, "arguments": {…}}`."""


def echo(request: dict[str, Any]) -> OllamaAnswer:
    """The last user turn, or the prompt of `/api/generate`."""
    if "messages" not in request:
        return OllamaAnswer(content=request.get("prompt", ""))
    turns = [turn.get("content", "") for turn in request["messages"] if turn["role"] == "user"]
    return OllamaAnswer(content=turns[-1] if turns else "")


class Parts(msgspec.Struct):
    """An answer as it is streamed: pieces of a message, how many tokens they are, and why it ended."""

    pieces: list[dict[str, Any]]
    tokens: int
    reason: str


def split_answer(body: dict[str, Any], answer: OllamaAnswer, room: int | None) -> Parts:
    """The answer word by word, cut by `num_predict`, `stop` and the room in the context."""
    options = body.get("options") or {}
    content = answer.content
    for stop in options.get("stop") or ():
        content = content.partition(stop)[0]
    pieces: list[dict[str, Any]] = [{"content": "", "thinking": word} for word in splitwords(answer.thinking)]
    pieces += [{"content": word} for word in splitwords(content)]
    limits = [limit for limit in (options.get("num_predict", -1), room) if limit is not None and limit >= 0]
    limit = min(limits, default=len(pieces))
    if limit < len(pieces):
        return Parts(pieces[:limit], limit, "length")
    tokens = len(pieces) + len(answer.tool_calls)
    for number, call in enumerate(answer.tool_calls):
        pieces.append({"content": "", "tool_calls": [{"id": f"call_{number:08d}", "function": call}]})
    return Parts(pieces, tokens, "stop")


def splitwords(text: str) -> list[str]:
    """Words with the space before them."""
    return [piece for n, word in enumerate(text.split(" ")) if (piece := word if n == 0 else f" {word}")]


def words(text: str) -> int:
    """How many tokens a text is."""
    return len(text.split())


def words_of(turns: list[dict[str, Any]]) -> int:
    """How many tokens a conversation is."""
    return sum(words(turn.get("content") or "") for turn in turns)


def vector(text: str) -> list[float]:
    """A unit vector that depends on the text."""
    values = [byte / 255 + 0.001 for byte in hashlib.sha256(text.encode()).digest()[:EMBEDDING_LENGTH]]
    length = sum(value * value for value in values) ** 0.5
    return [value / length for value in values]
