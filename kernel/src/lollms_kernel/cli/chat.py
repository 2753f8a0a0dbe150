"""`lollms chat`: a conversation in the terminal, or line by line through a pipe."""

from __future__ import annotations

import sys
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import LollmsError
from . import options
from .answer import Answer, Screen
from .conversation import Conversation, read_lines

if TYPE_CHECKING:
    from .partner import Partner

HELP = """\
/personality NAME   answer as this personality; without a name: list them
/model NAME         use this model; without a name: list them
/binding NAME       use this binding instance; without a name: list them
/system TEXT        instructions that precede the conversation; without a text: none
/clear              forget the conversation
/save FILE          write the conversation to FILE (Markdown, or JSON into *.json)
/help               show this list
/quit               leave (so does Ctrl-D); Ctrl-C stops an answer"""

PROMPT = "> "


@click.command()
@options.answerer
def chat(
    personality: str | None,
    model: str | None,
    binding: str | None,
    system: str | None,
    url: str | None,
    api_key: str | None,
    config_dir: Path,
) -> None:
    """Chat in the terminal.

    /help inside lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.

    Through a pipe each line is a question, and only the answers are printed.
    """
    from .partner import open_partner

    conversation = Conversation(personality, model, binding, system)
    with open_partner(config_dir, url, api_key) as partner:
        talk = Chat(partner, conversation)
        if sys.stdin.isatty() and sys.stdout.isatty():
            talk.run()
        else:
            talk.answer_lines()


class Chat:
    """One conversation with one partner."""

    def __init__(self, partner: Partner, conversation: Conversation) -> None:
        self.partner = partner
        self.conversation = conversation

    def run(self) -> None:
        """Ask and answer until the user leaves; errors are shown and the conversation goes on."""
        _enable_line_editing()
        click.secho("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.", dim=True, err=True)
        while True:
            try:
                line = input(PROMPT)
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.secho("\nCtrl-D or /quit leaves.", dim=True, err=True)
                continue
            try:
                if not self.take(line.strip()):
                    return
            except LollmsError as error:
                click.echo(f"lollms: {error.detail}", err=True)
            except KeyboardInterrupt:
                click.secho("(stopped)", dim=True, err=True)

    def answer_lines(self) -> None:
        """Take each line of stdin; the first error ends it."""
        for line in read_lines(sys.stdin.buffer):
            if not self.take(line.strip()):
                return

    def take(self, line: str) -> bool:
        """Answer a question or obey a command; False when the user wants to leave."""
        if line.startswith("/"):
            name, _, argument = line[1:].partition(" ")
            return self._obey(name, argument.strip())
        if line:
            self._answer(line)
        return True

    def _answer(self, prompt: str) -> None:
        answer, screen = Answer(), Screen()
        try:
            answer.receive(self.partner.ask(self.conversation.ask(prompt)), screen.show)
        finally:
            screen.end()
            self.conversation.add(prompt, answer.text)
        for output in answer.outputs:
            screen.note(f"({output.type} left out: 'lollms generate --output FILE' keeps it)")
        if answer.finished is not None and answer.finished.reason == "length":
            screen.note("(cut off at max_tokens)")

    def _obey(self, name: str, argument: str) -> bool:
        match name:
            case "quit" | "exit":
                return False
            case "help":
                click.echo(HELP, err=True)
            case "clear":
                self.conversation.turns.clear()
                _say("The conversation is forgotten.")
            case "system":
                self.conversation.system = argument or None
                _say("The instructions hold from now on." if argument else "No more instructions.")
            case "save":
                self._save(argument)
            case "personality":
                self.conversation.personality = self._choose(name, argument, self.conversation.personality)
            case "model":
                self.conversation.model = self._choose(name, argument, self.conversation.model)
            case "binding":
                self._switch_binding(argument)
            case _:
                _say(f"There is no command '/{name}'; /help lists them.")
        return True

    def _choose(self, kind: str, wanted: str, present: str | None) -> str | None:
        """`wanted` if it exists; else say what there is and keep the present one."""
        known = self._known(kind)
        if wanted in known:
            _say(f"The {kind} is '{wanted}' from now on.")
            return wanted
        if not wanted:
            _say(f"Now: {present or 'the default'}. There are: {', '.join(known) or 'none'}.")
            return present
        near = get_close_matches(wanted, known, n=1)
        advice = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(known) or 'none'}."
        _say(f"There is no {kind} '{wanted}'. {advice}")
        return present

    def _known(self, kind: str) -> list[str]:
        if kind == "personality":
            return self.partner.personalities()
        if kind == "binding":
            return self.partner.bindings()
        return self.partner.models(self.conversation.binding)

    def _switch_binding(self, wanted: str) -> None:
        before = self.conversation.binding
        self.conversation.binding = self._choose("binding", wanted, before)
        if self.conversation.binding != before and self.conversation.model is not None:
            self.conversation.model = None
            _say("It uses its default model; /model chooses another.")

    def _save(self, name: str) -> None:
        if not name:
            _say("/save needs the name of a file.")
            return
        try:
            self.conversation.save(Path(name).expanduser())
        except OSError as error:
            _say(f"{name} cannot be written: {error.strerror}.")
        else:
            _say(f"Written to {name}.")


def _say(text: str) -> None:
    click.secho(text, dim=True, err=True)


def _enable_line_editing() -> None:
    with suppress(ImportError):  # Pythons without readline still read lines
        import readline

        commands = [line.split()[0] for line in HELP.splitlines()]

        def complete(text: str, state: int) -> str | None:
            found = (
                [command for command in commands if command.startswith(text)] if text.startswith("/") else []
            )
            return found[state] if state < len(found) else None

        readline.set_completer_delims(" ")
        readline.set_completer(complete)
        readline.parse_and_bind("tab: complete")
