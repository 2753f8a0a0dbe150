"""`APScript` and `AIPersonality`, as far as scripts commonly use them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lollms_server.utils.helpers import extract_code_blocks  # type: ignore[import-not-found]

from lollms.config import BaseConfig, ConfigTemplate, TypedConfig  # type: ignore[import-not-found]
from lollms.paths import LollmsPaths  # type: ignore[import-not-found]
from lollms.prompting import build_prompt_from  # type: ignore[import-not-found]
from lollms.types import MSG_TYPE  # type: ignore[import-not-found]
from lollms_personality_loader.scripting.legacy import Session, current


class Model:
    """The tokens of the model that answers."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def tokenize(self, text: str) -> Any:
        """Token ids."""
        return self._session.wait(self._session.binding.tokenize(text))

    def detokenize(self, tokens: list[int]) -> Any:
        """Text of token ids."""
        return self._session.wait(self._session.binding.detokenize(tokens))


class AIPersonality:
    """What a script may know of its personality."""

    def __init__(self, session: Session) -> None:
        order, card = session.order, session.order.personality
        self._session = session
        self.name = card["name"]
        self.author = card["author"]
        self.category = card["category"]
        self.personality_package_path = Path(order.folder)
        self.personality_folder_name = Path(order.folder).name
        self.scripts_path = self.personality_package_path / "scripts"
        self.assets_path = self.personality_package_path / "assets"
        self.personality_conditioning = card["conditioning"]
        self.welcome_message = card["welcome_message"]
        self.user_name = card["user_name"]
        self.user_message_prefix = card["user_message_prefix"]
        self.ai_message_prefix = card["ai_message_prefix"]
        self.link_text = card["link_text"]
        self.help = card["description"]
        self.lollms_paths = LollmsPaths()
        self.model = Model(session)
        self.config = BaseConfig(
            config={
                **card,
                **order.params,
                "ctx_size": order.params.get("context_size", 4096),
                "max_n_predict": order.params.get("max_tokens", 1024),
                "user_name": card["user_name"],
            }
        )
        self.app: Any = None
        self.image_files: list[str] = []
        self.text_files: list[str] = []
        self.callback = session.callback

    def info(self, text: str, *_: Any) -> None:
        """Tell the client."""
        self._session.info("info", text)

    InfoMessage = warning = error = success = step = info

    def new_message(self, text: str = "", *_: Any, **__: Any) -> None:
        """Another message."""
        self._session.begin_message(text)

    def generate(self, prompt: str, max_size: int | None = None, *_: Any, **options: Any) -> str:
        """The model's answer."""
        return self._session.generate(prompt, _parameters(max_size, options))

    fast_gen = generate


class AIPersonalityInstaller:
    """Installs nothing."""

    def __init__(self, personality: Any, *_: Any) -> None:
        self.personality = personality


class APScript:
    """The base of every `Processor`."""

    def __init__(
        self,
        personality: AIPersonality,
        personality_config: Any = None,
        states_list: list[dict[str, Any]] | None = None,
        callback: Any = None,
    ) -> None:
        self._session = current()
        self.personality = personality
        self.personality_config = personality_config or TypedConfig(ConfigTemplate(), BaseConfig())
        self.config = personality.config
        self.lollms_paths = personality.lollms_paths
        self.files: list[str] = []
        self.states_list = states_list or []
        self.current_state_id = 0
        self.callback = callback or self._session.callback
        self.execute_callback = self._session.callback

    # --- what subclasses override ----------------------------------------------------------------------------

    def install(self) -> None:
        """Nothing is ever installed."""

    def mounted(self) -> None:
        """The personality was chosen."""

    def selected(self) -> None:
        """It was chosen again."""

    def help(self, prompt: str = "", full_context: str = "", *_: Any) -> None:
        """Say what it does."""
        self.set_message_content(self.personality.help)

    def add_file(self, path: str, *_: Any, **__: Any) -> bool:
        """Files come with the request here."""
        self.files.append(str(path))
        return True

    # --- the message -----------------------------------------------------------------------------------------

    def set_message_content(self, text: Any, *_: Any, **__: Any) -> None:
        """Put a text in the place of the message."""
        self._session.replace(str(text))

    full = full_invisible_to_ai = set_message_content_invisible_to_ai = set_message_content

    def set_message_content_invisible_to_user(self, *_: Any, **__: Any) -> None:
        """A text for the model alone: there is no place for it here."""

    full_invisible_to_user = set_message_content_invisible_to_user

    def add_chunk_to_message_content(self, text: Any, *_: Any, **__: Any) -> None:
        """Add to the message."""
        self._session.add(str(text))

    chunk = add_chunk_to_message_content

    def new_message(self, text: str = "", *_: Any, **__: Any) -> None:
        """Another message."""
        self._session.begin_message(str(text))

    def finished_message(self, *_: Any, **__: Any) -> None:
        """The message is done."""
        self._session.finish_message()

    def sink(self, *_: Any, **__: Any) -> bool:
        """A callback that shows nothing."""
        return True

    # --- what the client is told beside it -------------------------------------------------------------------

    def step_start(self, text: str, *_: Any, **__: Any) -> None:
        """A step begins."""
        self._session.info("step_start", text)

    def step_end(self, text: str, *_: Any, **__: Any) -> None:
        """A step has ended."""
        self._session.info("step_end", text)

    def step(self, text: str, *_: Any, **__: Any) -> None:
        """A step."""
        self._session.info("step", text)

    def info(self, text: str, *_: Any, **__: Any) -> None:
        """Something to know."""
        self._session.info("info", text)

    InfoMessage = success = info

    def warning(self, text: str, *_: Any, **__: Any) -> None:
        """Something to mind."""
        self._session.info("warning", text)

    def error(self, text: str, *_: Any, **__: Any) -> None:
        """Something went wrong."""
        self._session.info("error", text)

    exception = error

    def json(self, title: str, values: Any, *_: Any, **__: Any) -> None:
        """Values to look at."""
        self._session.info("json", f"{title}: {json.dumps(values, default=str)}")

    def ui(self, html: str, *_: Any, **__: Any) -> None:
        """A piece of a page: there is no page here."""
        self._session.info("ui", html)

    set_message_html = ui

    # --- the model -------------------------------------------------------------------------------------------

    def generate(self, prompt: str, max_size: int | None = None, *_: Any, **options: Any) -> str:
        """The model's answer; part of the message unless the callback is `sink`."""
        callback = options.get("callback")
        show = callback is not None and getattr(callback, "__func__", None) is not APScript.sink
        return self._session.generate(prompt, _parameters(max_size, options), show)

    def fast_gen(
        self,
        prompt: str,
        max_generation_size: int | None = None,
        placeholders: dict[str, str] | None = None,
        *_: Any,
        **options: Any,
    ) -> str:
        """The model's answer to a prompt with `{{name}}` filled in."""
        for name, value in (placeholders or {}).items():
            prompt = prompt.replace(name if name.startswith("{{") else "{{" + name + "}}", str(value))
        return self.generate(prompt, max_generation_size, **options)

    generate_text = fast_gen

    def generate_code(self, prompt: str, *_: Any, **options: Any) -> str:
        """The first code block of an answer, else all of it."""
        answer = self.fast_gen(prompt)
        blocks = extract_code_blocks(answer)
        return str(blocks[0]["content"]) if blocks else answer

    def yes_no(self, question: str, context: str = "", *_: Any, **__: Any) -> bool:
        """Whether the model answers yes."""
        answer = self.fast_gen(f"{context}\n{question}\nAnswer with one word, yes or no.".strip(), 16)
        found = re.search(r"\b(yes|no)\b", answer, re.IGNORECASE)
        return found is not None and found[1].lower() == "yes"

    def multichoice_question(
        self, question: str, possible_answers: list[str], context: str = "", **_: Any
    ) -> int:
        """The number of the answer that the model chooses, from 0; -1 for none."""
        choices = "\n".join(f"{number}. {text}" for number, text in enumerate(possible_answers))
        answer = self.fast_gen(f"{context}\n{question}\n{choices}\nAnswer with the number only.".strip(), 16)
        found = re.search(r"\d+", answer)
        number = int(found[0]) if found else -1
        return number if 0 <= number < len(possible_answers) else -1

    def summarize_text(self, text: str, instruction: str = "Summarize this text.", *_: Any, **__: Any) -> str:
        """A short version of a text."""
        return self.fast_gen(f"{instruction}\n\n{text}")

    def translate_text_chunk(self, text: str, output_language: str = "french", *_: Any, **__: Any) -> str:
        """A text in another language."""
        return self.fast_gen(
            f"Translate this text into {output_language}. Answer with the translation.\n\n{text}"
        )

    def build_prompt(self, parts: list[str], sacrifice_id: int = -1, *_: Any, **__: Any) -> str:
        """The parts as one text."""
        return "\n".join(str(part) for part in parts if part)

    def build_prompt_from_context_details(
        self, details: Any, custom_entries: str = "", suppress: Any = (), *_: Any, **__: Any
    ) -> str:
        """The conversation as one text."""
        return str(build_prompt_from(details, custom_entries, suppress))

    def extract_code_blocks(self, text: str, *_: Any, **__: Any) -> Any:
        """The fenced blocks of a text."""
        return extract_code_blocks(text)

    def remove_backticks(self, text: str) -> str:
        """A text without the fence around it."""
        blocks = extract_code_blocks(text)
        return str(blocks[0]["content"]) if len(blocks) == 1 else text

    def interact_with_function_call(
        self, context_details: Any, functions: Any = (), *_: Any, **__: Any
    ) -> Any:
        """The model's answer; functions of the desktop program are not called."""
        return self.generate(build_prompt_from(context_details))

    def print_prompt(self, title: str, prompt: str) -> None:
        """For the log."""

    def ask_user(self, question: str, *_: Any, **__: Any) -> str:
        """There is nobody to ask while a request runs."""
        return ""

    # --- states and commands ---------------------------------------------------------------------------------

    def goto_state(self, state: int | str) -> None:
        """Another state."""
        names = [entry.get("name") for entry in self.states_list]
        self.current_state_id = names.index(state) if isinstance(state, str) else state

    def process_state(
        self, prompt: str, full_context: str = "", callback: Any = None, *arguments: Any
    ) -> Any:
        """Let the present state's command, or its default, take the prompt."""
        state = self.states_list[self.current_state_id] if self.states_list else {}
        commands = state.get("commands") or {}
        for name, action in commands.items():
            if prompt.lower().startswith(name):
                return action(prompt[len(name) :].strip(), full_context, *arguments)
        default = state.get("default")
        if default is None:
            return self.set_message_content(self.fast_gen(prompt))
        return default(prompt, full_context, callback, *arguments)


def _parameters(max_size: int | None, options: dict[str, Any]) -> dict[str, Any]:
    known = ("temperature", "top_k", "top_p", "repeat_penalty", "repeat_last_n")
    found = {name: options[name] for name in known if options.get(name) is not None}
    return {**found, "max_tokens": int(max_size)} if max_size else found


__all__ = ["MSG_TYPE", "AIPersonality", "AIPersonalityInstaller", "APScript"]
