"""The messages of the protocol: what a client may send, checked, and what it gets."""

from __future__ import annotations

import unicodedata
from typing import Any

import msgspec

from .events import Outgoing

MAX_MESSAGE = 64 * 1024
"""Bytes of a message; more is an ERROR."""

MAX_FRAME = 1024 * 1024
"""Bytes of a frame; more ends the connection."""

FEATURES = frozenset({"stream", "state", "playback", "interrupt", "turn", "partial", "ping", "session"})
"""What a client may ask for beyond the published protocol: `?features=stream,state`."""

_DAY = 86_400

_NEEDS = {
    "PLAYBACK_STARTED": "playback",
    "PLAYBACK_FINISHED": "playback",
    "INTERRUPT": "interrupt",
    "END_OF_TURN": "turn",
    "USER_PARTIAL": "partial",
    "PING": "ping",
}


class BadMessage(Exception):
    """A message that cannot be used, with what to tell the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Incoming(msgspec.Struct, frozen=True):
    """A message of a client: a known type, and its payload as an object."""

    type: str
    payload: dict[str, Any]


def read(frame: str | bytes, features: frozenset[str]) -> Incoming:
    """A message. Raises BadMessage; no type that the connection did not ask for is known."""
    if isinstance(frame, bytes):
        raise BadMessage("binary", "Binary messages are not supported.")
    if len(frame) > MAX_MESSAGE or len(frame.encode(errors="replace")) > MAX_MESSAGE:
        raise BadMessage("too_large", f"The message is larger than {MAX_MESSAGE // 1024} KiB.")
    try:
        value = msgspec.json.decode(frame)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        raise BadMessage("invalid_json", "Invalid JSON.") from None
    if not isinstance(value, dict):
        raise BadMessage("invalid_message", "A message is an object with `type` and `payload`.")
    kind = value.get("type")
    if not isinstance(kind, str):
        raise BadMessage("invalid_message", "The message has no `type`.")
    needed = _NEEDS.get(kind, "")
    if kind not in ("USER_INPUT", "AUTH") and needed not in features:
        known = f" Connect with features={needed}." if needed else ""
        raise BadMessage("unknown_type", f"Unknown message type: {kind[:40]}.{known}")
    payload = value.get("payload", {} if kind in ("PING", "END_OF_TURN", "INTERRUPT") else None)
    if not isinstance(payload, dict):
        raise BadMessage("invalid_payload", "`payload` must be an object.")
    return Incoming(kind, payload)


def user_text(payload: dict[str, Any], longest: int) -> str:
    """The text of a USER_INPUT. Raises BadMessage."""
    text = payload.get("text")
    if not isinstance(text, str):
        raise BadMessage("invalid_text", "`payload.text` must be a string.")
    if len(text) > longest:
        raise BadMessage("text_too_long", f"`payload.text` has more than {longest} characters.")
    if not text.strip():
        raise BadMessage("empty_text", "`payload.text` is empty.")
    return text.strip()


def other_client(payload: dict[str, Any]) -> str | None:
    """The client id that a USER_INPUT names; None if it names none. Raises BadMessage."""
    named = payload.get("client_id")
    if named is None or named == "":
        return None
    if not isinstance(named, str) or not valid_client_id(named):
        raise BadMessage("invalid_client_id", "`payload.client_id` must be 1 to 128 characters.")
    return named


def response_named(payload: dict[str, Any], *, needed: bool) -> str | None:
    """The `response_id` of a payload. Raises BadMessage."""
    named = payload.get("response_id")
    if (named is None and not needed) or (isinstance(named, str) and len(named) <= 128):
        return named
    raise BadMessage("invalid_payload", "`payload.response_id` must be the id of a response.")


def seconds(payload: dict[str, Any], field: str, *, unit: float = 1.0) -> float | None:
    """A duration of a payload in seconds, None where there is none. Raises BadMessage."""
    value = payload.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value * unit <= _DAY:
        raise BadMessage("invalid_payload", f"`payload.{field}` must be a number from 0 to a day.")
    return value * unit


def valid_client_id(text: str) -> bool:
    """1 to 128 characters, not all blank, none that could forge a line of a log."""
    if not 1 <= len(text) <= 128 or not text.strip():
        return False
    return all(unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp") for character in text)


def wire(message: Outgoing) -> str:
    """The JSON text of a message."""
    return msgspec.json.encode({"type": message.type, "payload": message.payload}).decode()


def error(client_id: str, code: str, message: str, *, retryable: bool = False, **more: Any) -> Outgoing:
    """An ERROR message."""
    facts = {"message": message, "client_id": client_id, "code": code, "retryable": retryable}
    return Outgoing("ERROR", {**facts, **more})
