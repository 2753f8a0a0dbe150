"""What the wizard asks on a terminal: arrows choose, Enter takes what is suggested, Ctrl-C leaves all as it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import questionary

from ..config.api_keys import make_key
from ..config.encryption import new_key
from ..drafts import PACKAGES
from .checks import Check, check
from .plan import Answers, settings_of
from .presets import DEFAULT, PRESETS, Part, Preset, find_preset

Say = Callable[[str, str], None]
"""Shows a line: its text, and whether it is "good", "bad" or "plain"."""

Existing = Literal["add", "start over", "leave"]

_SECRETS = {
    "openai_binding": ("api_key", "OpenAI", "OPENAI_API_KEY"),
    "dalle_binding": ("api_key", "OpenAI", "OPENAI_API_KEY"),
    "gemini_binding": ("google_api_key", "Google", "GOOGLE_API_KEY"),
    "gemini_image_binding": ("google_api_key", "Google", "GOOGLE_API_KEY"),
}
"""Binding type to the setting with its key, whose key that is, and the variable that is used without it."""

_DEVICES = ("cuda", "mps", "cpu", "auto")
_NO_MODEL = "(none: a request names it)"


def ask_about_existing(folder: str, instances: Collection[str]) -> Existing:
    """What to do with a configuration that is there already."""
    there = f"{len(instances)} instance{'' if len(instances) == 1 else 's'}"
    choices = [
        questionary.Choice("Add to it, and change what the preset names", value="add"),
        questionary.Choice("Start over (the present files stay as .bak)", value="start over"),
        questionary.Choice("Leave it as it is", value="leave"),
    ]
    answer: Existing = questionary.select(
        f"There is a configuration in {folder} already, with {there}.", choices=choices
    ).unsafe_ask()
    return answer


def ask_preset(installed: Collection[str]) -> Preset:
    """One of the presets; those that need another package say which."""
    choices = [questionary.Choice(_title(preset, installed), value=preset.name) for preset in PRESETS]
    chosen = questionary.select("What shall answer?", choices=choices, default=DEFAULT).unsafe_ask()
    return find_preset(chosen)


def missing_packages(preset: Preset, installed: Collection[str]) -> list[str]:
    """The packages that a preset needs and that are not installed."""
    types = {part.type for part in preset.parts} - set(installed)
    return sorted({PACKAGES[type_name] for type_name in types})


def ask_settings(answers: Answers, say: Say, *, checking: bool) -> dict[str, dict[str, Any]]:
    """Settings of the preset's instances, those that are given already not asked for again."""
    assert answers.preset is not None, "there is a preset to ask about"
    found = {name: dict(settings) for name, settings in answers.instances.items()}
    keys: dict[str, str] = {}
    for part in answers.preset.parts:
        own = found.setdefault(part.name, {})
        _ask_key(part, own, keys)
        for name, ask in _QUESTIONS.get(part.type, {}).items():
            if name not in own:
                own[name] = ask(part.name, settings_of(part, answers)[name])
        result = check(part.type, {**part.settings, **own}) if checking else None
        if result is not None:
            tell(part, result, say)
            _ask_model(part, own, result)
    return {name: settings for name, settings in found.items() if settings}


def tell(part: Part, result: Check, say: Say) -> None:
    """Say what came of a check."""
    say(f"{part.name}: {result.text}", "good" if result.ok else "bad")


def ask_port(suggested: int) -> int:
    """The port of the server."""
    text = questionary.text(
        "Port of the server?", default=str(suggested), validate=_port_problem
    ).unsafe_ask()
    return int(text)


def ask_api_key() -> str | None:
    """A new API key, if clients shall need one."""
    choices = [
        questionary.Choice("No: only programs on this machine reach the server", value=False),
        questionary.Choice("Yes: make one", value=True),
    ]
    wanted = questionary.select("Shall clients need an API key?", choices=choices).unsafe_ask()
    return make_key() if wanted else None


def ask_encryption() -> tuple[str, Literal["file", "environment"]] | None:
    """A new encryption key and where it will be kept, if secrets shall be encrypted."""
    choices = [
        questionary.Choice("No: the files hold them in clear, readable by you alone", value=None),
        questionary.Choice("Yes, with a key in LOLLMS_ENCRYPTION_KEY (shown once)", value="environment"),
        questionary.Choice("Yes, with a key in the main configuration", value="file"),
    ]
    where = questionary.select("Shall secrets in the files be encrypted?", choices=choices).unsafe_ask()
    return None if where is None else (new_key(), where)


def confirm(question: str) -> bool:
    """Yes or no; Enter means yes."""
    return bool(questionary.confirm(question, default=True).unsafe_ask())


def _title(preset: Preset, installed: Collection[str]) -> str:
    missing = missing_packages(preset, installed)
    return f"{preset.name}  (needs {', '.join(missing)})" if missing else preset.name


def _ask_key(part: Part, own: dict[str, Any], keys: dict[str, str]) -> None:
    """The key of a service; one that was given for another instance of the same service is not asked for again."""
    if part.type not in _SECRETS:
        return
    setting, whose, variable = _SECRETS[part.type]
    if setting not in own and whose not in keys:
        keys[whose] = questionary.password(
            f"{whose} API key? (Enter: use the environment variable {variable})"
        ).unsafe_ask()
    if keys.get(whose):
        own.setdefault(setting, keys[whose])


def _ask_model(part: Part, own: dict[str, Any], result: Check) -> None:
    if part.type != "ollama_binding" or not result.models or "default_model" in own:
        return
    chosen = questionary.select(
        f"{part.name}: which model by default?", choices=[*result.models, _NO_MODEL]
    ).unsafe_ask()
    if chosen != _NO_MODEL:
        own["default_model"] = chosen


def _ask_host(name: str, suggested: Any) -> str:
    return str(questionary.text(f"{name}: where does Ollama listen?", default=str(suggested)).unsafe_ask())


def _ask_context(name: str, suggested: Any) -> int:
    return int(
        questionary.text(
            f"{name}: context size in tokens?", default=str(suggested), validate=_size_problem
        ).unsafe_ask()
    )


def _ask_folder(name: str, suggested: Any) -> str:
    return str(
        questionary.text(f"{name}: folder of the models?", default=str(suggested), validate=bool).unsafe_ask()
    )


def _ask_device(name: str, suggested: Any) -> str:
    return str(
        questionary.select(f"{name}: which device?", choices=list(_DEVICES), default=suggested).unsafe_ask()
    )


_QUESTIONS: Mapping[str, Mapping[str, Callable[[str, Any], Any]]] = {
    "ollama_binding": {"host": _ask_host},
    "llamacpp_binding": {"models_folder": _ask_folder, "n_ctx": _ask_context},
    "diffusers_binding": {"device": _ask_device, "models_folder": _ask_folder},
}
"""Binding type to the settings that are asked for."""


def _port_problem(text: str) -> bool | str:
    return (text.isdecimal() and 1 <= int(text) <= 65535) or "A number from 1 to 65535."


def _size_problem(text: str) -> bool | str:
    return (text.isdecimal() and int(text) < 2**31) or "A number; 0 means the model's own."
