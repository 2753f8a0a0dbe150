"""Structured logs on stderr: one line per fact, as text for people or as JSON for machines."""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec


class TextFormatter(logging.Formatter):
    """`12:00:00 INFO lollms.kernel finished request=… seconds=…`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it where there is one."""
        when = self.formatTime(record, "%H:%M:%S")
        facts = " ".join(
            f"{key}={_short(value)}" for key, value in _facts(record).items() if value is not None
        )
        line = f"{when} {record.levelname:<7} {_room(record)}: {record.getMessage()} {facts}".rstrip()
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (seconds since 1970), level, logger, message and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """One line without line breaks."""
        entry: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry, enc_hook=str).decode()


def configure(level: str | int = "INFO", style: str = "text") -> None:
    """Send the log of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn", "httpx", "httpx2", "httpcore", "httpcore2", "asyncio", "websockets"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    facts = getattr(record, "facts", None)
    return facts if isinstance(facts, dict) else {}


def _room(record: logging.LogRecord) -> str:
    return record.name.replace("lollms_kernel", "lollms", 1)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if " " not in text else repr(text)
