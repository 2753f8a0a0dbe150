"""Word lists of the rule, one TOML file for each language."""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import resources

import msgspec

NAMES = ("en", "de", "fr", "es", "it", "pt", "zh", "ja")


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """How the end of an unfinished turn looks in one language; everything is normalised text."""

    name: str
    open_words: frozenset[str]
    """Last words after which a speaker goes on."""
    open_endings: tuple[str, ...]
    """Endings of several words after which a speaker goes on; without spaces, of characters."""
    open: re.Pattern[str]
    """Further endings after which a speaker goes on."""
    closing: re.Pattern[str]
    """Endings that complete a turn all the same."""
    whole: frozenset[str]
    """Texts that are a turn of their own."""
    common: frozenset[str]
    """Frequent words, which tell the language."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    open_words: str
    open_endings: list[str]
    whole: list[str]
    open_patterns: list[str] = []
    closing_patterns: list[str] = []
    common: str = ""


@functools.cache
def language(name: str) -> Language:
    """The lists of one of NAMES."""
    text = resources.files(__name__).joinpath(f"{name}.toml").read_text("utf-8")
    file = msgspec.convert(tomllib.loads(text), _File)
    return Language(
        name=name,
        open_words=frozenset(file.open_words.split()),
        open_endings=tuple(file.open_endings),
        open=_any_of(file.open_patterns),
        closing=_any_of(file.closing_patterns),
        whole=frozenset(file.whole),
        common=frozenset(file.common.split()),
    )


def _any_of(patterns: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)")


def known_code(code: str | None) -> str | None:
    """The one of NAMES that a code such as `pt-BR` means, if any."""
    base = (code or "").replace("_", "-").partition("-")[0].lower()
    return base if base in NAMES else None


_KANA = re.compile(r"[\u3040-\u30ff]")
_HAN = re.compile(r"[\u3400-\u9fff]")


def guessed(text: str) -> str | None:
    """Which of NAMES a normalised text is in, by its script and its frequent words; None where nothing tells."""
    if _KANA.search(text):
        return "ja"
    if _HAN.search(text):
        return "zh"
    words = text.split()[-40:]
    counts = {name: sum(word in language(name).common for word in words) for name in NAMES}
    best = max(counts, key=lambda name: (counts[name], name == "en"))
    return best if counts[best] else None
