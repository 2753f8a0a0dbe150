"""Languages: one word for each, and the translations that a personality brings in its folder `languages`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lollms_kernel.errors import ConfigError

from .fields import Fields
from .formats import read_mapping_file
from .pictures import lies_in

_CODES = {
    "ar": "arabic",
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fr": "french",
    "hi": "hindi",
    "it": "italian",
    "ja": "japanese",
    "ko": "korean",
    "nl": "dutch",
    "pl": "polish",
    "pt": "portuguese",
    "ru": "russian",
    "tr": "turkish",
    "zh": "chinese",
}
_SUFFIXES = (".yaml", ".yml")


def normalise(text: str) -> str:
    """`English`, `en` and `en_US` are one language; a whole sentence, as in some files, is none."""
    word = text.strip().lower()
    code = re.split(r"[-_]", word)[0]
    if code in _CODES:
        return _CODES[code]
    return word if word.isalpha() else "english"


def translations(folder: Path) -> dict[str, Path]:
    """Language to file of the translations in `folder/languages`."""
    where = folder / "languages"
    try:
        names = sorted(os.listdir(where))
    except OSError:
        return {}
    return {
        normalise(Path(name).stem): where / name
        for name in names
        if name.endswith(_SUFFIXES) and lies_in(where, name)
    }


def translated(fields: Fields, folder: Path, language: str) -> Fields:
    """The fields with the translated ones in their place; what is not translated stays.

    Where there is no translation, or it cannot be read, the fields stay and `problems` says so.
    """
    wanted = normalise(language)
    if wanted == normalise(fields.first("language", "english")):
        return fields
    known = translations(folder)
    if wanted not in known:
        names = ", ".join(sorted(known)) or "none"
        fields.problems.append(f"There is no translation into '{wanted}'; there is: {names}.")
        return fields
    try:
        texts = Fields(read_mapping_file(known[wanted]))
    except ConfigError as error:
        fields.problems.append(f"The translation is not used: {error.detail.replace(f'{folder}/', '')}")
        return fields
    result = fields.overlaid(texts)
    result.set("language", wanted)
    result.problems.extend(fields.problems)
    return result
