"""The admin routes: who may call them, what they show, and that a change is applied whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lollms_kernel.testing import ServerProcess

from .conftest import LIMIT, prompt

KEY = "the-key-of-the-operator"
LIMITED = "the-key-of-a-guest"
SECRET = "sk-never-to-be-shown"
INSTANCES = {
    "echo": {"type": "dummy_binding", "model": "echo-model"},
    "other": {"type": "dummy_binding", "isolation": "process"},
}
CONFIG: dict[str, Any] = {"defaults": {"ttt_binding": "echo"}}


class Admin:
    """A server and a client of its admin routes."""

    def __init__(self, server: ServerProcess, **headers: str) -> None:
        self.server = server
        self._headers = headers

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        url = f"{self.server.url}/api/v1/admin/{path}"
        return httpx.request(method, url, headers=self._headers, timeout=LIMIT, **options)

    def files(self) -> dict[str, bytes]:
        """Every file of the configuration folder."""
        folder = self.server.config_dir
        return {
            str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()
        }

    def answer(self, binding: str | None = None) -> str:
        """What a binding answers to "hi"."""
        body = prompt("hi", binding_name=binding)
        response = httpx.post(f"{self.server.url}/api/v1/generate", json=body, timeout=LIMIT)
        assert response.status_code == 200, response.text
        return str(response.json()["output"][0]["data"])


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    """A server of two dummies that asks for no key."""
    with ServerProcess(CONFIG, INSTANCES, root=tmp_path) as server:
        yield Admin(server)


# --- what they show and do ----------------------------------------------------------------------------------


def test_given_instances_when_listed_then_type_state_settings_and_file_are_there(admin: Admin) -> None:
    listed = admin("GET", "instances").json()["instances"]

    assert set(listed) == {"echo", "other"}
    assert listed["echo"] == {
        "name": "echo",
        "type": "dummy_binding",
        "state": "ready",
        "settings": INSTANCES["echo"],
        "file": "bindings/echo.yaml",
        "pid": None,
        "error": None,
        "hint": None,
    }
    assert admin("GET", "instances/other").json()["pid"] != admin.server.pid


def test_given_a_new_instance_when_put_then_it_serves_and_its_files_are_written(admin: Admin) -> None:
    body = {"type": "dummy_binding", "settings": {"reply": "I am new."}, "default_for": ["ttt"]}

    done = admin("PUT", "instances/new", json=body)

    assert done.status_code == 200, done.text
    assert done.json()["applied"] is True
    assert done.json()["result"]["instances"]["added"] == ["new"]
    assert set(done.json()["result"]["instances"]["untouched"]) == {"echo", "other"}
    assert [(change["file"], change["state"]) for change in done.json()["diff"]] == [
        ("main_config.yaml", "changed"),
        ("bindings/new.yaml", "new"),
    ]
    assert admin.answer() == "I am new."
    assert yaml.safe_load(admin.files()["main_config.yaml"])["bindings_map"]["new"] == "dummy_binding"


def test_given_an_instance_when_put_then_it_answers_as_its_new_settings_say(admin: Admin) -> None:
    body = {"type": "dummy_binding", "settings": {"reply": "changed"}}

    done = admin("PUT", "instances/echo", json=body).json()

    assert done["result"]["instances"]["changed"] == ["echo"]
    assert done["diff"][0]["lines"] == ['- model: "echo-model"', '+ reply: "changed"']
    assert admin.answer() == "changed"


def test_given_a_change_when_applied_then_the_process_of_others_goes_on(admin: Admin) -> None:
    admin.answer("other")
    pid = admin("GET", "instances/other").json()["pid"]

    admin("PUT", "instances/echo", json={"type": "dummy_binding", "settings": {"reply": "x"}})
    admin("PUT", "instances/third", json={"type": "dummy_binding"})
    admin("DELETE", "instances/third")

    assert pid is not None
    assert admin("GET", "instances/other").json()["pid"] == pid


def test_given_an_instance_when_deleted_then_it_is_gone_and_its_file_is_a_backup(admin: Admin) -> None:
    done = admin("DELETE", "instances/echo")

    assert done.status_code == 200, done.text
    assert done.json()["result"]["instances"]["removed"] == ["echo"]
    assert "echo" not in admin("GET", "instances").json()["instances"]
    assert "bindings/echo.yaml" not in admin.files()
    assert "bindings/echo.yaml.bak" in admin.files()
    main = yaml.safe_load(admin.files()["main_config.yaml"])
    assert (main["defaults"], main["bindings_map"]) == ({}, {"other": "dummy_binding"})


def test_given_a_dry_run_when_put_or_deleted_then_only_the_diff_comes(admin: Admin) -> None:
    before = admin.files()

    put = admin("PUT", "instances/echo", params={"dry_run": True}, json={"type": "dummy_binding"})
    deleted = admin("DELETE", "instances/other", params={"dry_run": True})

    assert put.json() == {
        "applied": False,
        "diff": [{"file": "bindings/echo.yaml", "state": "changed", "lines": ['- model: "echo-model"']}],
        "result": None,
    }
    assert deleted.json()["applied"] is False
    assert [change["state"] for change in deleted.json()["diff"]] == ["changed", "removed"]
    assert admin.files() == before


def test_given_instances_when_tested_then_the_answer_says_whether_they_work(admin: Admin) -> None:
    assert admin("POST", "instances/other/test").json() | {"seconds": 0} == {
        "name": "other",
        "ok": True,
        "seconds": 0,
        "models": 1,
        "error": None,
        "hint": None,
    }
    assert admin("POST", "instances/nobody/test").status_code == 404


def test_given_files_edited_by_hand_when_reloaded_then_only_what_changed_is_touched(admin: Admin) -> None:
    (admin.server.config_dir / "bindings" / "echo.yaml").write_text("type: dummy_binding\nreply: by hand\n")

    result = admin("POST", "reload").json()["result"]

    assert result["instances"]["changed"] == ["echo"]
    assert result["instances"]["untouched"] == ["other"]
    assert admin.answer() == "by hand"


def test_given_another_port_in_the_file_when_reloaded_then_it_is_said_that_a_restart_is_needed(
    admin: Admin,
) -> None:
    file = admin.server.config_dir / "main_config.yaml"
    file.write_text(file.read_text() + "server: {port: 9999}\n")

    assert admin("POST", "reload").json()["result"]["needs_restart"] == ["server.port"]


# --- nothing is applied if anything is wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"settings": {}}, [["body", "type"]]),
        ({"type": 5}, [["body", "type"]]),
        ({"type": "no_such_binding"}, [["body", "type"]]),
        (
            {"type": "dummy_binding", "settings": {"modle": "m", "context_size": "big"}},
            [["body", "settings", "context_size"], ["body", "settings", "modle"]],
        ),
        ({"type": "dummy_binding", "default_for": ["everything"]}, [["body", "default_for", 0]]),
    ],
)
def test_given_a_wrong_body_when_put_then_every_mistake_is_named_and_nothing_changes(
    admin: Admin, body: dict[str, Any], places: list[list[Any]]
) -> None:
    before = admin.files()

    done = admin("PUT", "instances/echo", json=body)

    assert done.status_code == 422, done.text
    assert sorted(problem["loc"] for problem in done.json()["detail"]) == places
    assert admin.files() == before
    assert admin.answer() == "hi"


@pytest.mark.parametrize("name", ["..", "a b", "x" * 200, "ü"])
def test_given_a_name_that_is_none_when_put_then_it_is_refused(admin: Admin, name: str) -> None:
    before = admin.files()

    done = admin("PUT", f"instances/{name.replace('.', '%2E')}", json={"type": "dummy_binding"})

    assert done.status_code in (404, 405, 422)
    assert admin.files() == before


def test_given_an_instance_that_does_not_open_when_put_then_files_and_server_are_as_before(
    tmp_path: Path,
) -> None:
    with ServerProcess(CONFIG, INSTANCES, root=tmp_path, env=shy_plugin(tmp_path)) as server:
        admin = Admin(server)
        before = admin.files()

        added = admin("PUT", "instances/new", json={"type": "shy_binding"})
        changed = admin("PUT", "instances/echo", json={"type": "shy_binding"})

        assert (added.status_code, changed.status_code) == (503, 503)
        assert "I am too shy. Encourage me." in added.text
        assert admin.files() == before
        assert admin.answer() == "hi"
        assert set(admin("GET", "instances").json()["instances"]) == {"echo", "other"}


def test_given_broken_files_when_reloaded_then_the_running_configuration_stays(admin: Admin) -> None:
    (admin.server.config_dir / "bindings" / "echo.yaml").write_text("type: dummy_binding\nreply: [half a li")
    broken_instance = admin("POST", "reload")
    (admin.server.config_dir / "main_config.yaml").write_text("server: {prot: 1}")
    broken_main = admin("POST", "reload")

    assert (broken_instance.status_code, broken_main.status_code) == (422, 422)
    assert "echo.yaml" in broken_instance.json()["detail"][0]["msg"]
    assert "server.prot" in broken_main.json()["detail"][0]["msg"]
    assert admin.answer() == "hi"


def shy_plugin(folder: Path) -> dict[str, str]:
    """The environment with a plugin whose binding never opens."""
    from ..cli.commands import install

    return install(folder, "shy", SHY) | {"LOLLMS_LOAD_PLUGINS": "shy"}


SHY = """
from lollms_kernel.contracts import Binding, BindingCard
from lollms_kernel.errors import BindingUnavailable
from lollms_kernel.hookspecs import hookimpl

class Shy(Binding):
    type_name = "shy_binding"
    card = BindingCard(display_name="Shy", version="1", author="t", description="Never opens.")

    async def open(self):
        raise BindingUnavailable("I am too shy.", hint="Encourage me.")

    async def list_models(self):
        return []

    async def generate(self, request):
        yield

@hookimpl
def register_bindings(register):
    register(Shy)
"""


# --- who may call ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked() -> Iterator[ServerProcess]:
    """A server with an operator's and a limited key, and an instance with a secret."""
    keys = [KEY, {"name": "guest", "key": LIMITED, "bindings": ["echo"]}]
    config = {**CONFIG, "security": {"allowed_api_keys": keys}}
    cloud = {"type": "openai_binding", "api_key": SECRET, "base_url": "http://127.0.0.1:9/v1"}
    with ServerProcess(config, {**INSTANCES, "cloud": cloud}) as server:
        yield server


ROUTES = [
    ("GET", "instances"),
    ("GET", "instances/echo"),
    ("PUT", "instances/echo"),
    ("DELETE", "instances/echo"),
    ("POST", "instances/echo/test"),
    ("POST", "reload"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(("key", "status"), [(None, 403), ("wrong", 401), (LIMITED, 403)])
def test_given_no_right_key_when_any_route_is_called_then_it_is_refused(
    locked: ServerProcess, method: str, path: str, key: str | None, status: int
) -> None:
    admin = Admin(locked, **({} if key is None else {"X-API-Key": key}))

    assert admin(method, path, json={"type": "dummy_binding"}).status_code == status


def test_given_a_secret_when_shown_changed_and_diffed_then_only_stars_come_out(locked: ServerProcess) -> None:
    admin = Admin(locked, **{"X-API-Key": KEY})
    shown = admin("GET", "instances/cloud").json()["settings"]

    kept = admin(
        "PUT", "instances/cloud", json={"type": "openai_binding", "settings": {**shown, "max_retries": 1}}
    )
    file = admin.files()["bindings/cloud.yaml"]
    renewed = admin(
        "PUT",
        "instances/cloud",
        json={"type": "openai_binding", "settings": {**shown, "api_key": "sk-new-one"}},
    )

    assert shown["api_key"] == "***"
    assert kept.status_code == 200, kept.text
    assert SECRET.encode() in file
    assert renewed.status_code == 200, renewed.text
    assert b"sk-new-one" in admin.files()["bindings/cloud.yaml"]
    everything = kept.text + renewed.text + admin("GET", "instances").text + locked.log()
    assert SECRET not in everything
    assert "sk-new-one" not in everything


@pytest.mark.parametrize(
    "header",
    [
        {"X-Forwarded-For": "10.0.0.9"},
        {"Forwarded": "for=10.0.0.9"},
        {"Origin": "http://localhost:5173"},
    ],
)
def test_given_no_keys_when_a_proxy_or_a_page_asks_then_it_is_refused(
    server: ServerProcess, header: dict[str, str]
) -> None:
    refused = Admin(server, **header)("GET", "instances")

    assert refused.status_code == 403
    assert "security.allowed_api_keys" in refused.json()["detail"]
    assert Admin(server)("GET", "instances").status_code == 200
