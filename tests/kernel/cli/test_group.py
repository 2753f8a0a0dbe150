"""The group of commands: quick, open to plugins, clear about what is wrong."""

from __future__ import annotations

import socket
import subprocess
import sys
from importlib.metadata import version

import pytest

from lollms_kernel.cli.group import MODULES

from .commands import LIMIT, Workplace, install

HEAVY = {"httpx", "jinja2", "litestar", "llama_cpp", "numpy", "rich", "torch", "uvicorn", "yaml"}

_LOADED = """
import sys
from lollms_kernel.cli import main
try:
    main(sys.argv[1:], prog_name="lollms")
finally:
    print(*sys.modules, file=sys.stderr)
"""


def modules_after(workplace: Workplace, *words: str) -> set[str]:
    """What a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, *words],
        cwd=workplace.root,
        env=workplace.environment(),
        capture_output=True,
        check=True,
        text=True,
        timeout=LIMIT,
    )
    return set(done.stderr.split())


GREETER = """
import click
from lollms_kernel.errors import ConfigError, LollmsError
from lollms_kernel.hookspecs import hookimpl

@hookimpl
def register_commands(cli):
    @cli.command()
    @click.argument("name")
    def greet(name):
        "Greet somebody."
        if name == "nobody":
            raise LollmsError("Nobody is here.", hint="Name somebody.")
        click.echo(f"Hello {name}!")

    @cli.command()
    def serve():
        "Take over."
"""


def test_help_lists_every_command_and_imports_nothing_heavy(workplace: Workplace) -> None:
    shown = workplace.lollms("--help")

    assert shown.returncode == 0
    assert all(f"\n  {name} " in shown.stdout for name in MODULES)
    assert modules_after(workplace, "--help") & HEAVY == set()


@pytest.mark.parametrize("name", MODULES)
def test_help_of_a_command_imports_only_that_command(workplace: Workplace, name: str) -> None:
    modules = modules_after(workplace, name, "--help")

    others = {f"lollms_kernel.cli.{module}" for module in MODULES.values() if module != MODULES[name]}
    assert modules & (HEAVY | others | {"lollms_kernel.plugins"}) == set()


def test_version_is_that_of_the_package(workplace: Workplace) -> None:
    assert workplace.lollms("--version").stdout == f"lollms, version {version('lollms-kernel')}\n"


def test_an_unknown_command_is_answered_with_the_nearest(workplace: Workplace) -> None:
    done = workplace.lollms("modles")

    assert done.returncode == 2
    assert "No such command 'modles'. Did you mean 'models'?" in done.stderr


def test_a_plugin_adds_a_command(workplace: Workplace) -> None:
    env = install(workplace.root, "greeter", GREETER)

    assert "Greet somebody." in workplace.lollms("--help", env=env).stdout
    assert workplace.lollms("greet", "Anna", env=env).stdout == "Hello Anna!\n"


def test_what_a_plugins_command_raises_is_one_line_and_exit_code_1(workplace: Workplace) -> None:
    done = workplace.lollms("greet", "nobody", env=install(workplace.root, "greeter", GREETER))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "lollms: Nobody is here. Name somebody."


def test_a_plugin_cannot_replace_a_command_of_the_kernel(workplace: Workplace) -> None:
    shown = workplace.lollms("--help", env=install(workplace.root, "greeter", GREETER))

    assert "Start the server." in shown.stdout
    assert "Take over." not in shown.stdout
    assert "lollms: plugin greeter: the command 'serve' exists already, ignored." in shown.stderr


def test_a_broken_plugin_does_not_take_the_help_page_along(workplace: Workplace) -> None:
    shown = workplace.lollms("--help", env=install(workplace.root, "shattered", "import no_such_module"))

    assert shown.returncode == 0
    assert "Start the server." in shown.stdout
    assert "shattered" in shown.stderr


@pytest.mark.parametrize("command", ["serve", "chat", "generate", "bindings", "models", "personalities"])
def test_a_broken_configuration_is_one_line_and_exit_code_2(workplace: Workplace, command: str) -> None:
    (workplace.root / "lollms_configs" / "main_config.yaml").write_text("server: {prot: 1}\n")

    done = workplace.lollms(command, stdin="Hello")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lollms: ")
    assert "main_config.yaml" in done.stderr
    assert "server.prot" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_taken_port_is_one_line_and_exit_code_2(workplace: Workplace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = workplace.lollms("serve", "--port", str(port))

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"lollms: Cannot listen on 127.0.0.1 port {port}")
