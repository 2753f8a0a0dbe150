"""Scripts of the folder `clients`, run by node with the packages that `make test` installs there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "clients"
PACKAGES = FOLDER / "node_modules"
PATIENCE = 90.0


def bundle() -> Path:
    """The script that web pages load."""
    return package("socket.io-client-4.8") / "dist" / "socket.io.min.js"


def package(name: str) -> Path:
    found = PACKAGES / name
    assert found.is_dir(), f"{found} is not there: `sh tools/install.sh test` installs it"
    return found


async def run_script(script: str, *arguments: str) -> Any:
    """What the script prints, read as JSON; it must end well."""
    package("socket.io-client-4.8")
    process = await asyncio.create_subprocess_exec(
        "node",
        script,
        *arguments,
        cwd=FOLDER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            told, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{script} {' '.join(arguments)}\n{told.decode()}\n{complained.decode()}"
    return json.loads(told)
