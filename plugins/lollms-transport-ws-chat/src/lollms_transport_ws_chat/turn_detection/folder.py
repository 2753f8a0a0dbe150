"""Models of the folder layout that LiveKit's text turn detectors use: a small language model that says how likely it is
that the turn ends here.

Nothing of that kind ships with this package and nothing is downloaded: the user supplies the folder, and its licence
says what it may be used for. A folder holds `onnx/model_q8.onnx` (or another ONNX file), `tokenizer.json`,
`tokenizer_config.json` or `chat_template.jinja`, and `languages.json` where it tells languages apart.
"""

from __future__ import annotations

import importlib.util
import math
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lollms_kernel.errors import ConfigError, GenerationFailed, LollmsError

from .detector import SEED_THRESHOLD, Turn, TurnDetector
from .session import quiet_session

if TYPE_CHECKING:
    from jinja2 import Template

MAX_TURNS = 6
MAX_TOKENS = 128
END_OF_TURN = "<|im_end|>"
MODELS = ("onnx/model_q8.onnx", "onnx/model_quantized.onnx", "onnx/model.onnx", "model_q8.onnx", "model.onnx")
MAX_JSON = 64 * 1024 * 1024
"""Bytes; a vocabulary of 150,000 tokens takes 11 MB."""


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a folder, checked to be there."""

    path: Path
    model: Path
    tokenizer: Path
    template: str
    thresholds: dict[str, float]
    """By language code, lower case; empty for a model of one language."""
    normalises: bool
    """Whether texts lose case and punctuation first, as for models of several languages."""


class _LanguageEntry(msgspec.Struct, frozen=True):
    threshold: float


def check_folder(path: Path) -> Folder:
    """What is in a folder. Raises ConfigError that names what is missing or broken."""
    for module, package in (
        ("tokenizers", "tokenizers"),
        ("jinja2", "jinja2"),
        ("onnxruntime", "onnxruntime"),
    ):
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"The turn detector `folder` needs {package}, which is not installed.",
                hint="pip install 'lollms-transport-ws-chat[folder]'",
            )
    if not path.is_dir():
        raise ConfigError(
            f"There is no folder '{path}' for the turn detector.",
            hint="Put the model there yourself; nothing is downloaded. Or choose the detector `embedded`.",
        )
    model = next((path / name for name in MODELS if (path / name).is_file()), None)
    if model is None:
        raise ConfigError(f"The turn detector's folder '{path}' has none of {', '.join(MODELS)}.")
    if not (path / "tokenizer.json").is_file():
        raise ConfigError(f"The turn detector's folder '{path}' has no tokenizer.json.")
    thresholds = _thresholds(path)
    return Folder(
        path=path,
        model=model,
        tokenizer=path / "tokenizer.json",
        template=_template(path),
        thresholds=thresholds,
        normalises=len(thresholds) > 1,
    )


class FolderDetector(TurnDetector):
    """Asks the model of a folder; with the threshold `auto` that of `languages.json`, else the original server's."""

    name = "folder"
    default_threshold = SEED_THRESHOLD

    def __init__(self, folder: Folder, threshold: float | None = None) -> None:
        super().__init__(threshold)
        self._folder = folder
        self._auto = threshold is None
        self._lock = threading.Lock()
        self._model: _Model | None = None

    def threshold_for(self, language: str | None) -> float:
        """See `TurnDetector.threshold_for`."""
        if not self._auto or language is None:
            return self.threshold
        code = language.replace("_", "-").lower()
        known = self._folder.thresholds
        return known.get(code, known.get(code.partition("-")[0], self.threshold))

    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        """See `TurnDetector.probability`."""
        with self._lock:
            if self._model is None:
                self._model = _Model(self._folder)
            return self._model.probability(turns)

    def close(self) -> None:
        """See `TurnDetector.close`."""
        with self._lock:
            self._model = None


class _Model:
    """A loaded folder that has answered once."""

    def __init__(self, folder: Folder) -> None:
        from tokenizers import Tokenizer

        self._folder = folder
        try:
            self._template = _compiled(folder.template)
            self._tokenizer: Any = Tokenizer.from_file(str(folder.tokenizer))
            self._session: Any = quiet_session(folder.model)
            inputs = [value.name for value in self._session.get_inputs()]
            if inputs != ["input_ids"]:
                raise ValueError(f"the model's inputs are {', '.join(inputs)} instead of input_ids")
            self.probability([Turn("user", "hello")])
        except Exception as error:  # templates, tokenizers and onnxruntime raise what they like
            raise _unusable(folder, error) from error

    def probability(self, turns: Sequence[Turn]) -> float:
        import numpy as np

        ids = self._tokenizer.encode(self.prompt(turns), add_special_tokens=False).ids[-MAX_TOKENS:]
        if not ids:
            return 0.0
        (first, *_) = self._session.run(None, {"input_ids": np.array([ids], dtype=np.int64)})
        found = float(np.asarray(first).flatten()[-1])
        if not (math.isfinite(found) and 0 <= found <= 1):
            raise GenerationFailed(
                f"The turn detector's model answered {found}, which is no probability.",
                hint="Its last output has to be the probability itself, not a logit.",
            )
        return found

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The last turns in the folder's own template, cut where the last turn would end."""
        kept = [t for t in turns if t.role in ("user", "assistant") and t.content.strip()][-MAX_TURNS:]
        messages: list[dict[str, str]] = []
        for turn in kept:
            text = _without_marks(turn.content) if self._folder.normalises else turn.content
            if messages and messages[-1]["role"] == turn.role:
                messages[-1]["content"] += " " + text
            else:
                messages.append({"role": turn.role, "content": text})
        rendered = self._template.render(
            messages=messages, add_generation_prompt=False, bos_token="", eos_token=END_OF_TURN
        )
        before, mark, _ = rendered.rpartition(END_OF_TURN)
        return before if mark else rendered


def _without_marks(text: str) -> str:
    text = unicodedata.normalize("NFKC", text.lower())
    kept = (c for c in text if c in "'-" or not unicodedata.category(c).startswith("P"))
    return " ".join("".join(kept).split())


def _compiled(template: str) -> Template:
    """Sandboxed: a folder comes from anywhere, and its template is a program."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)


def _read_json(file: Path) -> Any:
    try:
        if file.stat().st_size > MAX_JSON:
            raise ConfigError(f"'{file}' has more than {MAX_JSON // 2**20} MB.")
        return msgspec.json.decode(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"'{file}' cannot be read: {error}") from None


def _template(path: Path) -> str:
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    config = path / "tokenizer_config.json"
    found = _read_json(config) if config.is_file() else {}
    template = found.get("chat_template") if isinstance(found, dict) else None
    if not isinstance(template, str):
        raise ConfigError(
            f"The turn detector's folder '{path}' has no chat template.",
            hint="It belongs into tokenizer_config.json (chat_template) or chat_template.jinja.",
        )
    return template


def _thresholds(path: Path) -> dict[str, float]:
    file = path / "languages.json"
    if not file.is_file():
        return {}
    try:
        entries = msgspec.convert(_read_json(file), dict[str, _LanguageEntry])
    except msgspec.ValidationError as error:
        raise ConfigError(f'\'{file}\' is not of the form {{"en": {{"threshold": 0.01}}}}: {error}') from None
    return {code.lower(): entry.threshold for code, entry in entries.items()}


def _unusable(folder: Folder, error: Exception) -> LollmsError:
    return ConfigError(
        f"The turn detector in '{folder.path}' cannot be used: {error}",
        hint="Check that the folder is complete, or choose the detector `embedded`.",
    )
