"""Imports go one way, plugins stand alone, and no engine gets into the server process."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from lollms_kernel.testing import ServerProcess

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "kernel" / "src" / "lollms_kernel"
PLUGINS = {package.name: package for package in ROOT.glob("plugins/*/src/*") if package.is_dir()}

ROOMS: list[set[str]] = [
    {"errors", "placeholders"},
    {"types"},
    {"contracts"},
    {"hookspecs"},
    {
        "bodies",
        "config",
        "plugins",
        "thoughts",
        "admission",
        "parameters",
        "interrupt",
        "logs",
        "upstream",
        "disconnect",
        "endings",
        "pace",
        "gguf_header",
        "quantization",
        "processors",
        "free_memory",
    },
    {
        "gpu",
        "access",
        "drafts",
        "engine_figures",
        "downloads",
        "personalities",
        "completion",
        "tools",
    },
    {"workers"},
    {"sandbox"},
    {"instance"},
    {"instances"},
    {"pipeline"},
    {"kernel"},
    {"dummy", "rest"},
    {"builtin"},
    {"gate"},
    {"server"},
    {"doctor"},
    {"wizard"},
    {"cli", "testing"},
    {"__main__"},
]
"""From the bottom up: a room imports only rooms of earlier entries."""

LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}

ENGINES = {"diffusers", "llama_cpp", "ollama", "onnxruntime", "torch", "transformers"}

PROMISED = {
    "bodies",
    "errors",
    "types",
    "contracts",
    "hookspecs",
    "config",
    "thoughts",
    "parameters",
    "testing",
    "upstream",
    "disconnect",
    "server",
    "pace",
    "sandbox",
    "downloads",
    "gguf_header",
    "quantization",
    "processors",
    "free_memory",
}
"""What plugins may use of the kernel."""


class Import(NamedTuple):
    """One imported module by its full name, and whether importing the file executes it."""

    module: str
    at_once: bool
    where: str


def imports(file: Path, package: str) -> list[Import]:
    """All imports of a file except those that only type checkers see; `package` is the package it lies in."""
    found: list[Import] = []

    def note(module: str, node: ast.AST, at_once: bool) -> None:
        found.append(Import(module, at_once, f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"))

    def walk(node: ast.AST, at_once: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for otherwise in node.orelse:
                walk(otherwise, at_once)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                note(alias.name, node, at_once)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                note(f"{module}.{alias.name}", node, at_once)
        inner = at_once and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            walk(child, inner)

    walk(ast.parse(file.read_text("utf-8")), at_once=True)
    return found


def files(package: Path) -> Iterator[tuple[Path, list[Import]]]:
    """Every Python file of a package with its imports."""
    for file in sorted(package.rglob("*.py")):
        name = ".".join(file.parent.relative_to(package.parent).parts)
        yield file, imports(file, name)


def room_of(file: Path) -> str:
    """The room of the kernel that a file belongs to."""
    return file.relative_to(KERNEL).parts[0].removesuffix(".py")


def rooms_used(imported: Import) -> set[str]:
    """The room of the kernel that an import reaches, if any."""
    parts = imported.module.split(".")
    return {parts[1]} & LEVEL.keys() if parts[0] == "lollms_kernel" and len(parts) > 1 else set()


def test_every_room_of_the_kernel_has_its_place() -> None:
    rooms = {room_of(file) for file, _ in files(KERNEL)} - {"__init__"}

    assert rooms == LEVEL.keys()


def test_the_map_in_the_documentation_shows_every_room() -> None:
    table = re.findall(r"^\| (`.+?) \|", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.MULTILINE)
    shown = {room for cell in table for room in re.findall(r"`(\w+)`", cell)}

    assert shown == LEVEL.keys() - {"__main__"}


def test_rooms_import_only_downwards() -> None:
    upwards = [
        f"{imported.where}: {room_of(file)} imports {used}"
        for file, found in files(KERNEL)
        if room_of(file) != "__init__"
        for imported in found
        for used in rooms_used(imported) - {room_of(file)}
        if LEVEL[used] >= LEVEL[room_of(file)]
    ]

    assert upwards == []


def test_what_ships_as_a_plugin_is_named_by_nobody_else_in_the_kernel() -> None:
    naming = [
        f"{imported.where}: {imported.module}"
        for file, found in files(KERNEL)
        if room_of(file) not in {"builtin", "dummy", "rest"}
        for imported in found
        if imported.module.endswith((".DummyBinding", ".RestTransport"))
    ]

    assert naming == []


def test_importing_the_kernel_itself_imports_nothing() -> None:
    (_, found), *_ = [pair for pair in files(KERNEL) if pair[0] == KERNEL / "__init__.py"]

    assert [imported.module for imported in found if not imported.module.startswith("__future__")] == []


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_plugins_never_import_each_other(name: str) -> None:
    others = PLUGINS.keys() - {name}
    foreign = [i for _, found in files(PLUGINS[name]) for i in found if i.module.split(".")[0] in others]

    assert foreign == []


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_plugins_use_only_what_the_kernel_promises(name: str) -> None:
    inside = [i for _, found in files(PLUGINS[name]) for i in found if rooms_used(i) - PROMISED]

    assert inside == []


def modules_loaded_with(package: Path) -> dict[Path, list[Import]]:
    """The files of a package that importing the package executes, with their imports."""
    known = dict(files(package))
    loaded: dict[Path, list[Import]] = {}
    wanted = [package / "__init__.py"]
    while wanted:
        file = wanted.pop()
        if file in loaded or file not in known:
            continue
        loaded[file] = known[file]
        for imported in known[file]:
            names = imported.module.split(".")
            if imported.at_once and names[0] == package.name:
                for end in range(1, len(names) + 1):
                    inner = package.parent.joinpath(*names[:end])
                    wanted += [inner / "__init__.py", inner.with_suffix(".py")]
    return loaded


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_importing_a_plugin_imports_no_engine(name: str) -> None:
    loaded = modules_loaded_with(PLUGINS[name])
    engines = [
        i for found in loaded.values() for i in found if i.at_once and i.module.split(".")[0] in ENGINES
    ]

    assert loaded
    assert engines == []


def test_the_kernel_knows_no_engine() -> None:
    engines = [i for _, found in files(KERNEL) for i in found if i.module.split(".")[0] in ENGINES]

    assert engines == []


def test_a_broad_except_has_its_reason_beside_it() -> None:
    broad = {None, "Exception", "BaseException"}
    silent = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for package in [KERNEL, *PLUGINS.values()]
        for file, _ in files(package)
        for lines in [file.read_text("utf-8").splitlines()]
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.ExceptHandler)
        and (ast.unparse(node.type) if node.type else None) in broad
        and not isinstance(node.body[-1], ast.Raise)
        and "#" not in "".join(lines[node.lineno - 1 : node.body[0].lineno - 1])
    ]

    assert silent == []


# --- the running server -------------------------------------------------------------------------------------


def mapped_engines(pid: int) -> set[str]:
    """Names of the engine libraries that a process has mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text("utf-8")
    return set(re.findall(r"/(lib(?:llama|ggml|torch|onnxruntime)[\w-]*)\.so", maps))


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text("utf-8")
        except OSError:
            continue  # it has ended meanwhile
        if int(text.rpartition(")")[2].split()[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def test_a_generation_maps_the_engine_into_the_worker_and_not_into_the_server(tmp_path: Path) -> None:
    question = {"input_data": [{"type": "text", "role": "user_prompt", "data": "Hello!"}]}

    with ServerProcess(root=tmp_path) as server:
        response = httpx.post(f"{server.url}/api/v1/generate", json=question, timeout=120)
        in_server = mapped_engines(server.pid)
        in_workers = set().union(*map(mapped_engines, children(server.pid)))

    assert response.status_code == 200, response.text
    assert in_server == set()
    assert any(name.startswith("libllama") for name in in_workers)
