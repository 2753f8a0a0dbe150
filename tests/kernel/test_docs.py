"""Words and code say the same: hooks, links, commands, calls and configuration examples of the documentation."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import httpx
import pytest

from lollms_kernel import hookspecs
from lollms_kernel.cli import main
from lollms_kernel.cli.reference import reference as cli
from lollms_kernel.config.load import load_config
from lollms_kernel.config.reference import reference as configuration
from lollms_kernel.kernel import LocalKernel
from lollms_kernel.plugins import PluginSet, load_plugins
from lollms_kernel.testing import ServerProcess

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
HOOKS = ROOT / "docs" / "hooks.md"
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not {part for part in page.relative_to(ROOT).parts if part.startswith(".") or part == "node_modules"}
    and page.relative_to(ROOT).parts[0] not in {"lollms_configs", "models", "personal"}
)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """What the console blocks type, as words; a line ending with a backslash goes on."""
    for block in blocks(page, "console"):
        for match in re.finditer(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE):
            yield shlex.split(match[1].replace("\\\n", " "))


# --- hooks --------------------------------------------------------------------------------------------------


def specified_hooks() -> dict[str, str]:
    """Name and exact signature of every hook, from the source."""
    tree = ast.parse(Path(hookspecs.__file__).read_text("utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    assert all(function.returns for function in functions)
    return {
        function.name: f"{function.name}({ast.unparse(function.args)}) -> {ast.unparse(function.returns)}"
        for function in functions
        if function.returns
    }


def documented_hooks() -> dict[str, str]:
    """Signature in the heading and the example below it."""
    sections = re.split(r"^## `(.+)`$", HOOKS.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return dict(zip(sections[::2], sections[1::2], strict=True))


def test_every_hook_is_a_heading_with_its_exact_signature_and_nothing_else_is() -> None:
    assert list(documented_hooks()) == list(specified_hooks().values())


@pytest.mark.parametrize("hook", specified_hooks())
def test_the_example_of_a_hook_loads_as_a_plugin(hook: str) -> None:
    section = documented_hooks()[specified_hooks()[hook]]
    (example,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    namespace: dict[str, object] = {"__name__": "example"}
    exec(compile(example, f"{HOOKS} ({hook})", "exec"), namespace)
    plugins = PluginSet()

    plugins.add("example", lambda: SimpleNamespace(**namespace))

    status = plugins.status("example")
    assert (status.state, status.error, status.hooks) == ("loaded", None, (hook,))


# --- links and commands -------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What links may point at within a page, as GitHub makes it from headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def parse_lollms(words: list[str]) -> None:
    """Let click parse a command line down to its last option without running it."""
    command: click.Command = main
    context = command.make_context("lollms", words)
    assert words, "a command is missing"
    while isinstance(command, click.Group):
        if not (context._protected_args or context.args):
            return  # a group's name, as in a heading
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, f"{words}: no such command"
        command = found
        # a command's bare name, as in a heading, is a mention and no call
        context = command.make_context(name, rest, parent=context, resilient_parsing=not rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    inline = re.findall(r"`((?:lollms|make) [^`]+)`", page.read_text("utf-8"))
    for program, *words in [*commands(page), *map(shlex.split, inline)]:
        while re.fullmatch(r"[A-Z_]+=.*", program):  # a variable for the command alone
            program, *words = words
        if program == "lollms":
            parse_lollms(words)
        elif program == "make":
            subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True)
        else:
            assert program in {"git", "cat", "cd", "source", "curl", "mkdir", "mv", "pip", "uv", "python"}, (
                program
            )


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    with pytest.raises(click.UsageError):
        parse_lollms(["fly"])
    with pytest.raises(click.UsageError):
        parse_lollms(["serve", "--high"])


def curl(words: list[str]) -> tuple[str, str, dict[str, str], str | None]:
    """Method, URL, headers and body of a curl command line."""
    url, headers, body = "", {}, None
    rest = iter(words)
    for word in rest:
        if word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(rest)
        elif word != "-N":
            assert word.startswith("http"), f"the tests do not know curl's {word}"
            url = word
    return "GET" if body is None else "POST", url, headers, body


# --- what the README shows ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server without any configuration, as the README starts it."""
    with ServerProcess(root=tmp_path_factory.mktemp("readme")) as running:
        yield running


def test_the_readme_shows_what_the_server_prints(server: ServerProcess) -> None:
    (shown,) = re.findall(r"^\$ make serve\n(.+?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)

    assert shown in server.log().replace(server.url, "http://127.0.0.1:9601")


def test_the_calls_of_the_readme_work(server: ServerProcess) -> None:
    calls = [curl(words[1:]) for words in commands(README) if words[0] == "curl"]
    assert len(calls) == 3
    for method, url, headers, body in calls:
        url = url.replace("http://127.0.0.1:9601", server.url)
        response = httpx.request(method, url, headers=headers, content=body, timeout=120)
        assert response.status_code == 200, response.text
        assert "error" not in response.text


def test_the_configuration_examples_of_the_readme_work(tmp_path: Path) -> None:
    examples = [re.fullmatch(r"# (\S+)\n(.+)", block, re.DOTALL) for block in blocks(README, "yaml")]
    assert all(examples), "the first line of an example names its file"
    named = [(tmp_path / example[1], example[2]) for example in examples if example]
    main_files = [(file, text) for file, text in named if file.name == "main_config.yaml"]
    for file, text in named:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")

    assert len(main_files) == 2
    for file, text in main_files:
        file.write_text(text, "utf-8")
        plugins = load_plugins()
        kernel = LocalKernel(load_config(file.parent), plugins)

        assert [plugin for plugin in plugins.plugins if plugin.state == "broken"] == []
        assert [instance for instance in kernel.instances() if instance.state == "failed"] == []
        assert "pirate" in kernel.personalities


# --- generated pages and lists ------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "written"), [("configuration.md", configuration()), ("cli.md", cli())])
def test_generated_pages_are_up_to_date(page: str, written: str) -> None:
    assert (ROOT / "docs" / page).read_text("utf-8").strip() == written.strip(), "run make docs"


def test_pip_and_uv_install_the_same_tools() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    lines = (ROOT / "requirements-dev.txt").read_text("utf-8").splitlines()
    for_pip = {line for line in lines if line and not line.startswith(("#", "-r"))}
    for_uv = set(project["dependency-groups"]["dev"])
    packages = {
        tomllib.loads(file.read_text("utf-8"))["project"]["name"]
        for file in [ROOT / "kernel/pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]
    }

    assert for_uv == for_pip | packages
    assert set(project["tool"]["uv"]["sources"]) == packages


def test_every_package_of_the_workspace_is_installed_by_the_requirements() -> None:
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    editable = {line.removeprefix("-e ./") for line in lines if line.startswith("-e ")}
    folders = {str(file.parent.relative_to(ROOT)) for file in ROOT.glob("plugins/*/pyproject.toml")}

    assert editable == folders | {"kernel"}
