"""`lollms doctor`: what does not work, with its cure; exit code 1 if something is an error."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import yaml

from lollms_kernel.testing import ServerProcess

from .commands import Workplace, install

TALKATIVE = """
from lollms_kernel.contracts import Binding, BindingCard
from lollms_kernel.errors import BindingUnavailable
from lollms_kernel.hookspecs import hookimpl

class Engine(Binding):
    type_name = "talkative_binding"
    card = BindingCard(display_name="T", version="1", author="a", description="d",
                       requirements=("click>=8", "no-such-engine>=1"))

    async def list_models(self):
        return []

    async def generate(self, request):
        yield

    @classmethod
    def doctor_findings(cls):
        yield "warning", "instruction set", "it has a trap", "Step around it."

class Absent(Engine):
    type_name = "absent_binding"

    @classmethod
    def unavailable_reason(cls):
        return BindingUnavailable("Its engine is not installed.", hint="pip install engine")

@hookimpl
def register_bindings(register):
    register(Engine)
    register(Absent)
"""


def examine(workplace: Workplace, **options: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the findings by title."""
    done = workplace.lollms("doctor", "--json", **options)
    assert done.stderr == ""
    return done.returncode, {finding["title"]: finding for finding in json.loads(done.stdout)}


def test_a_sound_configuration_has_no_errors(workplace: Workplace) -> None:
    code, found = examine(workplace)

    assert code == 0
    assert [finding for finding in found.values() if finding["level"] == "error"] == []
    assert {
        "Python",
        "memory",
        "disk",
        "exposure",
        f"port {workplace.port}",
        "binding instance echo",
    } <= found.keys()
    assert found["plugin lollms-kernel"]["level"] == "ok"


def test_people_get_a_line_for_each_finding_and_a_summary(workplace: Workplace) -> None:
    done = workplace.lollms("doctor")

    assert "ok    Python: 3." in done.stdout
    assert done.stdout.splitlines()[-1].startswith("no errors, ")
    assert "\x1b" not in done.stdout


def test_without_any_configuration_the_defaults_are_examined(workplace: Workplace) -> None:
    _, found = examine(
        workplace, env={"LOLLMS_CONFIG_DIR": str(workplace.root / "nothing"), "LOLLMS_PORT": "54321"}
    )

    assert "the defaults hold" in found["configuration"]["text"]
    assert "port 54321" in found


def test_a_broken_configuration_is_an_error_and_the_rest_is_still_examined(workplace: Workplace) -> None:
    (workplace.root / "lollms_configs" / "main_config.yaml").write_text("server: {prot: 1}\n")

    code, found = examine(workplace)

    assert code == 1
    assert found["configuration"]["level"] == "error"
    assert "server.prot" in found["configuration"]["text"]
    assert "plugin lollms-kernel" in found


def test_a_broken_instance_is_an_error_with_its_cure(workplace: Workplace) -> None:
    workplace.configure({"strange": {"type": "no_such_binding"}})

    code, found = examine(workplace)

    assert code == 1
    assert "no_such_binding" in found["binding instance strange"]["text"]
    assert found["binding instance strange"]["cure"]


def test_a_broken_plugin_is_an_error_with_its_cure(workplace: Workplace) -> None:
    code, found = examine(workplace, env=install(workplace.root, "shattered", "import no_such_module"))

    assert code == 1
    assert found["plugin shattered"]["level"] == "error"
    assert "pip install no_such_module" in found["plugin shattered"]["cure"]


def test_binding_types_tell_engines_and_their_own_findings(workplace: Workplace) -> None:
    code, found = examine(workplace, env=install(workplace.root, "talkative", TALKATIVE))

    assert code == 0, "an engine that nobody uses may be missing"
    engines = found["binding type talkative_binding"]["text"]
    assert engines.startswith("click 8.")
    assert engines.endswith("no-such-engine not installed")
    assert found["binding type absent_binding"] == {
        "level": "warning",
        "title": "binding type absent_binding",
        "text": "Its engine is not installed.",
        "cure": "pip install engine",
    }
    assert found["instruction set"]["cure"] == "Step around it."


def test_an_engine_that_an_instance_needs_must_be_there(workplace: Workplace) -> None:
    workplace.configure({"mine": {"type": "absent_binding"}})

    code, found = examine(workplace, env=install(workplace.root, "talkative", TALKATIVE))

    assert code == 1
    assert found["binding type absent_binding"]["level"] == "error"


def test_a_port_that_another_program_has_taken_is_an_error(workplace: Workplace) -> None:
    with socket.create_server(("127.0.0.1", workplace.port)) as taken:
        taken.settimeout(0)
        code, found = examine(workplace)

    assert code == 1
    assert found[f"port {workplace.port}"]["text"] == "taken by another program"
    assert f"--port {workplace.port + 1}" in found[f"port {workplace.port}"]["cure"]


def test_a_port_that_our_own_server_has_taken_is_fine(tmp_path: Path, workplace: Workplace) -> None:
    server = ServerProcess(root=tmp_path / "server")
    (server.config_dir / "main_config.yaml").write_text(yaml.safe_dump({"server": {"port": server.port}}))
    with server:
        _, found = examine(workplace, env={"LOLLMS_CONFIG_DIR": str(server.config_dir)})

    assert found[f"port {server.port}"]["level"] == "ok"
    assert f"runs at {server.url}" in found[f"port {server.port}"]["text"]


def test_an_open_server_without_keys_is_an_error_and_a_deliberate_one_a_warning(workplace: Workplace) -> None:
    everywhere = {"host": "0.0.0.0", "port": workplace.port}
    workplace.configure(config={"server": everywhere})
    refused, first = examine(workplace)
    workplace.configure(config={"server": {**everywhere, "allow_insecure_bind": True}})
    accepted, second = examine(workplace)

    assert (refused, first["exposure"]["level"]) == (1, "error")
    assert "security.allowed_api_keys" in first["exposure"]["cure"]
    assert (accepted, second["exposure"]["level"]) == (0, "warning")


def test_keys_are_counted_and_never_shown(workplace: Workplace) -> None:
    workplace.configure(config={"security": {"allowed_api_keys": ["open-sesame", "hush-hush"]}})
    (workplace.root / "lollms_configs" / "main_config.yaml").chmod(0o644)

    done = workplace.lollms("doctor")

    assert "2 API keys" in done.stdout
    assert "chmod 600" in done.stdout
    assert "open-sesame" not in done.stdout


def test_a_folder_that_is_a_file_is_an_error(workplace: Workplace) -> None:
    (workplace.root / "models").write_text("I am a file.")

    code, found = examine(workplace)

    assert code == 1
    assert found["paths.models_folder"]["level"] == "error"
    assert "is not a folder" in found["paths.models_folder"]["text"]
