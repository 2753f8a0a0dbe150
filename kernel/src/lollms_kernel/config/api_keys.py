"""API keys as configurations hold them: made, hashed, recognised.

A key that we make has 256 random bits, so nobody can try all keys until a hash fits, and a plain SHA-256 protects it as
well as a slow password hash would, at a millionth of the cost for each request. A key that a person has thought up can
be guessed: keep such a key as text (it is encrypted like every secret) or, better, let us make one.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence

from .schema import ApiKeyEntry, SecurityConfig

HASH_PREFIX = "sha256:"
_PREFIX = "lollms-"
_RANDOM_BYTES = 32
_HASH = re.compile(re.escape(HASH_PREFIX) + "[0-9a-f]{64}")
_ID_DIGITS = 16


def make_key() -> str:
    """A new key that nobody can guess."""
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def digest(key: str) -> bytes:
    """What two keys are compared by."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def hashed(key: str) -> str:
    """The form of a key that a configuration may hold instead of it."""
    return HASH_PREFIX + digest(key).hex()


def is_hash(text: str) -> bool:
    """Whether a text is the hash of a key; then it opens nothing and needs no encryption."""
    return _HASH.fullmatch(text) is not None


def entries(security: SecurityConfig) -> list[tuple[bytes, ApiKeyEntry]]:
    """The digest of every key with its entry; one that is only a key has the start of its digest as name."""
    found = []
    for item in security.allowed_api_keys:
        own = item if isinstance(item, ApiKeyEntry) else None
        text = (own.key or own.hash or "") if own else str(item)
        known = bytes.fromhex(text.removeprefix(HASH_PREFIX)) if is_hash(text) else digest(text)
        found.append((known, own or ApiKeyEntry(name=key_id(known), key=text)))
    return found


def key_id(known: bytes) -> str:
    """A short name for a key that has none; it tells nothing about the key."""
    return known.hex()[:_ID_DIGITS]


def usable_key(allowed: Sequence[str | ApiKeyEntry]) -> str | None:
    """A key in clear that may do everything, for our own commands; None if there is none."""
    for item in allowed:
        if isinstance(item, str):
            if not is_hash(item):
                return item
        elif item.key and not is_hash(item.key) and item.bindings is None and item.personalities is None:
            return item.key
    return None
