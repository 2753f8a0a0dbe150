"""Scripts of the desktop program: what they need is named, and those that need nothing foreign run where allowed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lollms_kernel.testing import ServerProcess
from lollms_personality_loader.fields import Fields
from lollms_personality_loader.scripts import Script, find_script

HEAD = """
import subprocess
from pathlib import Path
from lollms.config import TypedConfig, BaseConfig, ConfigTemplate, InstallOption
from lollms.types import MSG_TYPE, MSG_OPERATION_TYPE
from lollms.personality import APScript, AIPersonality
from lollms.helpers import ASCIIColors, trace_exception
from lollms.prompting import LollmsContextDetails
from lollms.client_session import Client
from lollms.utilities import PackageManager


class Processor(APScript):
    def __init__(self, personality: AIPersonality, callback=None):
        template = ConfigTemplate([{"name": "nb_ideas", "type": "int", "value": 3, "min": 2, "max": 100}])
        config = TypedConfig(template, BaseConfig.from_template(template))
        super().__init__(personality, config, [{"name": "idle", "commands": {"help": self.help}, "default": None}],
                         callback=callback)

    def install(self):
        raise AssertionError("install was called")
"""

MODERN = (
    HEAD
    + """
    def run_workflow(self, context_details: LollmsContextDetails = None, client: Client = None, callback=None):
        self.step_start("thinking")
        topic = {"{{topic}}": context_details.prompt}
        ideas = [self.fast_gen(f"idea {n} of {{{{topic}}}}", 64, topic, callback=self.sink)
                 for n in range(self.personality_config.nb_ideas)]
        self.step_end("thinking")
        self.set_message_content("working")
        self.set_message_content("; ".join(ideas))
        self.new_message("")
        self.add_chunk_to_message_content(self.personality.name)
        self.add_chunk_to_message_content(" done, " + str(context_details["prompt"]))
"""
)
OLD = (
    HEAD
    + """
    def run_workflow(self, prompt, previous_discussion_text="", callback=None):
        ASCIIColors.info("at work")
        callback("streamed ", MSG_TYPE.MSG_TYPE_CHUNK)
        callback(prompt, MSG_TYPE.MSG_TYPE_CHUNK)
        tokens = self.personality.model.tokenize("ab")
        callback(f" {len(tokens)} {self.yes_no('Well?')}", MSG_TYPE.MSG_TYPE_CHUNK)
"""
)
RAISES = (
    HEAD
    + """
    def run_workflow(self, context_details, client, callback):
        raise ValueError("no luck")
"""
)
FOREIGN = (
    "import requests\nfrom PIL import Image\nfrom lollms.functions.generate_image import build_image\n" + HEAD
)
GUARDED = "try:\n    import requests\nexcept ImportError:\n    requests = None\n" + MODERN


def processor(folder: Path, text: str) -> None:
    (folder / "scripts").mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"name: The {folder.name}\npersonality_conditioning: Be {folder.name}.\n"
    )
    (folder / "scripts/processor.py").write_text(text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("legacy")
    folder = root / "personal/personalities/art"
    for name, text in {
        "modern": MODERN,
        "old": OLD,
        "raises": RAISES,
        "foreign": FOREIGN,
        "off": MODERN,
    }.items():
        processor(folder / name, text)
    allowed = {name: {"allow_legacy_scripts": True} for name in ("modern", "old", "raises", "foreign")}
    config = {"defaults": {"ttt_binding": "echo"}, "personalities_config": allowed}
    with ServerProcess(config, {"echo": {"type": "dummy_binding"}}, root=root) as running:
        yield running


def ask(server: ServerProcess, name: str, stream: bool = False) -> httpx.Response:
    inputs = [{"type": "text", "role": "user_prompt", "data": "cats"}]
    asked = {"input_data": inputs, "personality": name, "stream": stream}
    answer = httpx.post(f"{server.url}/api/v1/generate", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_processor_runs_through_the_shim_where_it_is_allowed(server: ServerProcess) -> None:
    (output,) = ask(server, "modern").json()["output"]

    assert output["data"] == "idea 0 of cats; idea 1 of cats; idea 2 of cats\n\nThe modern done, cats"


def test_its_steps_are_told_while_it_works(server: ServerProcess) -> None:
    events = [json.loads(line[6:]) for line in ask(server, "modern", stream=True).text.split("\n\n") if line]

    infos = [event["content"] for event in events if event["type"] == "info"]
    assert infos == [
        {"status": "step_start", "message": "thinking"},
        {"status": "step_end", "message": "thinking"},
    ]


def test_the_signature_of_2023_works_as_well(server: ServerProcess) -> None:
    (output,) = ask(server, "old").json()["output"]

    assert output["data"] == "streamed cats 2 True"
    assert "at work" in server.log()


def test_one_that_raises_gives_an_error_output(server: ServerProcess) -> None:
    (output,) = ask(server, "raises").json()["output"]

    assert (output["type"], output["data"]) == ("error", "Workflow execution failed: no luck")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("foreign", "this server has no PIL, lollms.functions.generate_image, requests"),
        ("off", "personalities_config.off.allow_legacy_scripts"),
    ],
)
def test_others_work_through_their_conditioning_and_say_why(
    server: ServerProcess, name: str, said: str
) -> None:
    (output,) = ask(server, name).json()["output"]
    listed = httpx.get(f"{server.url}/api/v1/list_personalities").json()["personalities"][f"art/{name}"]

    assert output["data"] == "cats"
    assert said in output["metadata"]["notices"][0]["message"]
    assert (listed["legacy_script"], listed["script_enabled"], listed["is_scripted"]) == (True, False, False)
    assert said in listed["problems"][0]


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (MODERN, ()),
        (GUARDED, ()),
        (FOREIGN, ("PIL", "lollms.functions.generate_image", "requests")),
        (
            "import os, torch\nif True:\n    import numpy.linalg\nclass Processor: ...\n",
            ("numpy.linalg", "torch"),
        ),
        ("def f():\n    import torch\nclass Processor: ...\n", ()),
        ("from helper import x\nfrom . import y\nclass Processor: ...\n", ()),
    ],
)
def test_what_a_processor_needs_is_read_from_its_source(
    tmp_path: Path, text: str, missing: tuple[str, ...]
) -> None:
    processor(tmp_path / "one", text)
    (tmp_path / "one/scripts/helper.py").write_text("x = 1\n")

    assert find_script(tmp_path / "one", Fields({})) == Script("legacy", "scripts/processor.py", missing)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "defines no class `Processor`"),
        ("class Processor(:\n", "line 1 is no Python"),
        ("x = '\0'\n", "is no Python"),
        ("(" * 5000, "is no Python"),
    ],
)
def test_a_processor_that_is_none_is_a_problem(tmp_path: Path, text: str, said: str) -> None:
    processor(tmp_path / "one", text)
    fields = Fields({})

    assert find_script(tmp_path / "one", fields) is None
    assert said in fields.problems[0]


def test_nothing_of_a_processor_runs_when_it_is_read(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    text = f"open({str(mark)!r}, 'w')\n" + textwrap.dedent(MODERN)
    processor(tmp_path / "one", text)

    found: Any = find_script(tmp_path / "one", Fields({}))

    assert found.kind == "legacy"
    assert not mark.exists()
