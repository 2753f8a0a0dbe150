"""What README and documentation say is what the code does."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import msgspec

from lollms_transport_ws_chat.messages import FEATURES
from lollms_transport_ws_chat.metrics import Metrics
from lollms_transport_ws_chat.settings import WsChatSettings

from .conftest import ChatServer

ROOT = Path(__file__).parents[3]
README = (ROOT / "plugins" / "lollms-transport-ws-chat" / "README.md").read_text()
DOCS = (ROOT / "docs" / "voice-chat.md").read_text()


def test_the_table_has_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", README, re.MULTILINE))
    for field in msgspec.structs.fields(WsChatSettings):
        default = msgspec.json.encode(field.default).decode().strip('"').removesuffix(".0")
        assert rows[field.name].strip("`") == default, field.name


def test_every_figure_is_listed() -> None:
    for family in Metrics().registry.collect():
        assert f"`{family.name.removeprefix('lollms_ws_chat_')}" in README.replace(", `", ", `"), family.name


def test_every_feature_is_listed() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", DOCS, re.MULTILINE)) >= FEATURES


async def test_the_example_of_the_documentation_works(chat_server: ChatServer) -> None:
    block = re.search(r"```python\n(.*?)```", DOCS, re.DOTALL)
    assert block is not None
    program = block[1].replace("ws://localhost:9000", chat_server.own)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.splitlines() == ["Welcome.", "What can you do?"], done.stderr
