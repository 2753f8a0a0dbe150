"""Secrets of configuration files, encrypted value by value: `enc:` and a Fernet token.

Fernet (AES-128-CBC with HMAC-SHA256) notices a wrong key and any change of the token. The keys come from
`LOLLMS_ENCRYPTION_KEY`, else from `security.encryption_key`. There may be several, separated by commas: the first one
encrypts, all decrypt, so that keys can change one file after the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

VARIABLE = "LOLLMS_ENCRYPTION_KEY"
SETTING = "security.encryption_key"
PREFIX = "enc:"
WHOLE_FILE = b"gAAAA"
"""How a file begins that lollms_server's ConfigGuard has encrypted as a whole."""

_TOKEN = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_=-]+")
_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")


class UndecryptableError(ValueError):
    """A value that no known key decrypts; the text says what is wrong, never the value."""


class Keys:
    """The encryption keys; false if there are none."""

    def __init__(self, text: str | None, source: str) -> None:
        self.text = text or ""
        self.source = source
        """Where the keys were found, for errors."""

    def __bool__(self) -> bool:
        return bool(self.text)

    def __repr__(self) -> str:
        return f"Keys({'set' if self else 'none'}, {self.source!r})"

    def encrypt(self, text: str) -> str:
        """The text as a file should hold it. Raises ConfigError if the key is no Fernet key."""
        return PREFIX + self._fernet.encrypt(text.encode("utf-8", "surrogatepass")).decode()

    def decrypt(self, value: str) -> str:
        """The text behind an encrypted value. Raises UndecryptableError."""
        return self.decrypt_bytes(value.removeprefix(PREFIX).encode()).decode("utf-8", "surrogatepass")

    def decrypt_bytes(self, token: bytes) -> bytes:
        """What a bare token holds. Raises UndecryptableError."""
        if not self:
            raise UndecryptableError(f"is encrypted, and neither {VARIABLE} nor {SETTING} is set")
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(token)
        except InvalidToken:
            raise UndecryptableError(f"cannot be decrypted with the key of {self.source}") from None
        except ConfigError as error:
            raise UndecryptableError(f"is encrypted. {error.message.removesuffix('.')}") from None

    def before(self, key: str) -> Keys:
        """These keys with another one in front, which encrypts from now on."""
        return Keys(",".join(filter(None, (key, self.text))), self.source)

    @cached_property
    def _fernet(self) -> MultiFernet:
        from cryptography.fernet import Fernet, MultiFernet

        texts = [text.strip() for text in self.text.split(",")]
        if not all(map(_KEY.fullmatch, texts)):
            raise ConfigError(
                f"{self.source} is no encryption key.",
                hint="A key is 44 characters long; `lollms config rotate-key` makes one.",
            )
        return MultiFernet([Fernet(text) for text in texts])


def find_keys(configured: str | None, environ: Mapping[str, str]) -> Keys:
    """The keys that count: those of the environment, else those of the main configuration."""
    found = environ.get(VARIABLE)
    return Keys(found, VARIABLE) if found else Keys(configured, SETTING)


def new_key() -> str:
    """A fresh random key."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def is_encrypted(text: str) -> bool:
    """Whether a value of a file is an encrypted one."""
    return _TOKEN.fullmatch(text) is not None
