"""Small tools; what would install or start something does nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ascii_colors import ASCIIColors, trace_exception  # type: ignore[import-not-found]  # beside this package


class PackageManager:
    """Installs nothing."""

    @staticmethod
    def check_package_installed(name: str, *_: Any) -> bool:
        """Always, so that nobody tries to install."""
        return True

    @staticmethod
    def install_package(name: str, *_: Any, **__: Any) -> bool:
        """Nothing is ever installed."""
        ASCIIColors.warning(f"'{name}' was not installed: scripts install nothing here.")
        return False

    install_or_update = safe_import = rebuild_packages = install_package


class PromptReshaper:
    """A template with `{{name}}` that is filled in, cut to a number of tokens."""

    def __init__(self, template: str) -> None:
        self.template = template

    def replace(self, placeholders: dict[str, Any]) -> str:
        """The text with its placeholders filled in."""
        text = self.template
        for name, value in placeholders.items():
            text = text.replace(name if name.startswith("{{") else "{{" + name + "}}", str(value))
        return text

    def build(
        self,
        placeholders: dict[str, Any],
        tokenize: Callable[[str], list[int]],
        detokenize: Callable[[list[int]], str],
        max_nb_tokens: int,
        place_holders_to_sacrifice: list[str] | None = None,
    ) -> str:
        """The filled text; the named values lose their beginnings where it is too long."""
        values = {name: str(value) for name, value in placeholders.items()}
        over = len(tokenize(self.replace(values))) - max_nb_tokens
        for name in place_holders_to_sacrifice or []:
            tokens = tokenize(values.get(name, ""))
            if over > 0 and tokens:
                values[name] = detokenize(tokens[over:])
                over -= len(tokens)
        return self.replace(values)


def discussion_path_to_url(path: str | Path) -> str:
    """There are no addresses of files here: the name."""
    return Path(path).name


def output_file_path_to_url(path: str | Path) -> str:
    """As above."""
    return Path(path).name


def find_first_available_file_index(folder: str | Path, prefix: str, extension: str = "") -> int:
    """The first number that no file `prefix` + number has."""
    number = 0
    while Path(folder, f"{prefix}{number}{extension}").exists():
        number += 1
    return number


def remove_text_from_string(text: str, to_remove: str) -> str:
    """The text without another one."""
    return text.replace(to_remove, "")


def reinstall_pytorch_with_cuda() -> None:
    """Nothing is ever installed."""


def show_yes_no_dialog(*_: Any) -> bool:
    """There is nobody to ask."""
    return False


__all__ = ["ASCIIColors", "PackageManager", "PromptReshaper", "discussion_path_to_url", "trace_exception"]
