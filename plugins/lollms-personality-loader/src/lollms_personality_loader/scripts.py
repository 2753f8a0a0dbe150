"""Which program a personality has, and what a program of the desktop era needs. Nothing here runs any of it."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from lollms_kernel.errors import ConfigError

from .fields import Fields
from .pictures import lies_in

WORKFLOW = "scripts/workflow.py"
LEGACY = "scripts/processor.py"
MAX_BYTES = 1024 * 1024

COMPAT = Path(__file__).parent / "compat"
"""Modules of the older programs that scripts import; on the path of script processes only."""


class Script(msgspec.Struct, frozen=True):
    """A program of a personality; `file` is relative to its folder."""

    kind: Literal["workflow", "legacy"]
    file: str
    missing: tuple[str, ...] = ()
    """Modules that it imports and that are not there."""


def find_script(folder: Path, fields: Fields) -> Script | None:
    """The program that the file names, else one of a usual name. A path that leads out of the folder is a problem."""
    wanted = fields.text("script_path", "").strip()
    if wanted and not lies_in(folder, wanted):
        fields.problems.append(
            "`script_path` must name a file inside the personality's folder; there is no script without."
        )
        return None
    if wanted and not wanted.endswith(".py"):
        fields.problems.append("`script_path` must name a Python file; there is no script without.")
        return None
    if not wanted and not os.path.isdir(folder / "scripts"):
        return None
    file = wanted or next((name for name in (WORKFLOW, LEGACY) if lies_in(folder, name)), "")
    if not file:
        return None
    if Path(file).name == Path(LEGACY).name:
        return _legacy(folder, file, fields)
    return Script("workflow", file)


def read_source(folder: Path, file: str) -> str:
    """The text of a script. Raises ConfigError where it cannot be read or does not lie in the folder any more."""
    path = folder / file
    if not lies_in(folder, file):
        raise ConfigError(f"{path} is no file inside {folder}.", hint="Put the script into the folder.")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes.", hint="Split it into modules.")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}.", hint="Make it readable for the server.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8.", hint="Save it as UTF-8.") from error


def _legacy(folder: Path, file: str, fields: Fields) -> Script | None:
    try:
        tree = ast.parse(read_source(folder, file))
    except ConfigError as error:
        fields.problems.append(error.detail.replace(f"{folder}/", ""))
        return None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        fields.problems.append(f"`{file}`{f', line {line}' if line else ''} is no Python: {error}.")
        return None
    if not any(isinstance(node, ast.ClassDef) and node.name == "Processor" for node in tree.body):
        fields.problems.append(f"`{file}` defines no class `Processor`; there is no script without.")
        return None
    own = {path.stem for path in (folder / file).parent.glob("*.py")}
    missing = sorted(
        {
            module
            for module in _imported(tree)
            if module.partition(".")[0] not in own and not _is_there(module)
        }
    )
    return Script("legacy", file, tuple(missing))


def _imported(tree: ast.Module) -> Iterator[str]:
    """Modules that importing the file imports for certain: those within a function or a `try` may never be needed."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, level=0) if module:
                yield module
            case ast.If(body=body, orelse=orelse):
                waiting += [*body, *orelse]
            case ast.With(body=body) | ast.ClassDef(body=body):
                waiting += body


def _is_there(module: str) -> bool:
    """Whether a script process can import it: the standard library and the modules of `compat`.

    What else happens to be installed beside the server is no promise, so it does not count.
    """
    top, *rest = module.split(".")
    if top in sys.stdlib_module_names:
        return True
    place = COMPAT.joinpath(top, *rest)
    return place.is_dir() or place.with_suffix(".py").is_file()
