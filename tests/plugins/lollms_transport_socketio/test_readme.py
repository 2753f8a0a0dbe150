"""What README and documentation say of this protocol is so."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lollms_kernel.testing import ServerProcess
from lollms_transport_socketio.events import CANCEL, EVENTS
from lollms_transport_socketio.settings import SocketioSettings

from .node_scripts import FOLDER

ROOT = Path(__file__).parents[3]
README = (ROOT / "plugins" / "lollms-transport-socketio" / "README.md").read_text("utf-8")
PROTOCOL = (ROOT / "docs" / "socketio.md").read_text("utf-8")


def shown(value: Any) -> str:
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return f"`{value}`"
        case tuple():
            return f"`[{', '.join(value)}]`"
        case _:
            return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_table_has_every_setting_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", README, re.MULTILINE))

    assert table == {field.name: shown(field.default) for field in msgspec.structs.fields(SocketioSettings)}


def test_the_documentation_has_every_event() -> None:
    missing = [
        name for name in [*EVENTS, *CANCEL] if f"`{name}`" not in PROTOCOL and f"{name} {{" not in PROTOCOL
    ]

    assert missing == []


@pytest.mark.parametrize("language", ["python", "js"])
async def test_the_examples_work(server: ServerProcess, language: str) -> None:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    code = code.replace("http://127.0.0.1:9601", server.url)
    if language == "python":
        command = [sys.executable, "-c", code]
    else:
        code = code.replace('"socket.io-client"', '"socket.io-client-4.8"')
        command = ["node", "--input-type=module", "-e", code]

    process = await asyncio.create_subprocess_exec(
        *command, cwd=FOLDER, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        told, _ = await process.communicate()

    assert process.returncode == 0, told.decode()
    assert told.decode().strip() == ("Hello!\ntext_generated" if language == "python" else "Hello!")
