"""The code of docs/plugins.md works as it is printed there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import yaml

from lollms_kernel.config.load import load_config
from lollms_kernel.kernel import LocalKernel
from lollms_kernel.plugins import load_plugins
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Info, Message, TextDelta

ROOT = Path(__file__).parents[2]
PERSONALITY, CONTRACT_TEST = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs/plugins.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)


def configured(folder: Path) -> Path:
    """A configuration with a dummy that repeats the last user turn."""
    (folder / "bindings").mkdir(parents=True)
    main = {"bindings_map": {"echo": "dummy_binding"}, "defaults": {"ttt_binding": "echo"}}
    (folder / "main_config.yaml").write_text(yaml.safe_dump(main))
    instance = {"type": "dummy_binding", "binding_instance_name": "echo"}
    (folder / "bindings/echo.yaml").write_text(yaml.safe_dump(instance))
    return folder


async def test_given_the_personality_when_asked_then_it_generates_twice(tmp_path: Path) -> None:
    namespace: dict[str, object] = {"__name__": "careful"}
    exec(compile(PERSONALITY, "docs/plugins.md", "exec"), namespace)
    plugins = load_plugins([("careful", SimpleNamespace(**namespace))], environ={"LOLLMS_LOAD_PLUGINS": ""})
    request = GenerateRequest(id="1", personality="careful", messages=(Message("user", "hello"),))

    async with (
        LocalKernel(load_config(configured(tmp_path / "conf")), plugins) as kernel,
        kernel.stream(request) as stream,
    ):
        chunks: list[Chunk] = [chunk async for chunk in stream]

    assert plugins.status("careful").state == "loaded"
    assert isinstance(chunks[0], Info)
    text = "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))
    assert text == "Improve your answer. Write only the new one."
    assert isinstance(chunks[-1], Finished)


def test_given_the_contract_test_when_run_then_the_example_passes(tmp_path: Path) -> None:
    (tmp_path / "test_shout.py").write_text(CONTRACT_TEST)
    example = ROOT / "examples" / "minimal-plugin"
    options = ["-o", "asyncio_mode=auto", "-o", f"pythonpath={example}", "-p", "no:cacheprovider"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), *options, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
