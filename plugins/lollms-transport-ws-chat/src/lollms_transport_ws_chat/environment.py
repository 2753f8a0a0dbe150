"""What the environment and a `.env` file say where the configuration says nothing.

The configuration wins over the environment, and that over the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from dotenv import dotenv_values

from lollms_kernel.config.concealment import remember
from lollms_kernel.errors import ConfigError

from .settings import WsChatSettings

SENTENCES = "MAX_INCOMPLETE_SENTENCES"
SILENCE = "MAX_RESPONSE_TIMEOUT"
API_URL = "CHAT_MODEL_API_URL"
API_KEY = "CHAT_MODEL_API_KEY"
APP_ID = "CHAT_MODEL_APP_ID"


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """The values in force."""

    max_incomplete: int
    silence: float
    api_url: str | None
    api_key: str | None
    app_id: str | None

    def __repr__(self) -> str:
        """Without the key: a repr ends up in logs and tracebacks."""
        return f"Resolved(max_incomplete={self.max_incomplete}, silence={self.silence})"


def resolve(settings: WsChatSettings, root: Path, environ: Mapping[str, str] = os.environ) -> Resolved:
    """The values in force, `root` being the folder of the `.env` file. Raises ConfigError for unusable ones."""
    file = root / ".env"
    written = {name: value for name, value in dotenv_values(file).items() if value is not None}
    values = {name: text.strip() for name, text in {**written, **environ}.items() if text.strip()}

    def where(name: str) -> str:
        return f"The environment variable {name}" if environ.get(name, "").strip() else f"{file}: {name}"

    sentences, silence = settings.max_incomplete_sentences, settings.max_response_timeout
    if sentences is None:
        sentences = int(_number(values.get(SENTENCES, "3"), where(SENTENCES), 1, 50, whole=True))
    if silence is None:
        silence = _number(values.get(SILENCE, "5"), where(SILENCE), 0, 86_400, whole=False)
    resolved = Resolved(
        max_incomplete=sentences,
        silence=silence,
        api_url=settings.api_url or values.get(API_URL),
        api_key=settings.api_key or values.get(API_KEY),
        app_id=settings.app_id or values.get(APP_ID),
    )
    remember([resolved.api_key] if resolved.api_key else [])
    return resolved


def _number(text: str, where: str, least: int, most: int, *, whole: bool) -> float:
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(
            f"{where} is {text[:40]!r}, which cannot be used.", hint=f"Give {kind} from {least} to {most}."
        )
    return number
