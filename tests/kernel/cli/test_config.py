"""`lollms config`: what people type, what they see, what ends up in the files."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from lollms_kernel.config.encryption import VARIABLE, is_encrypted, new_key

from .commands import Workplace, install

KEY = new_key()
SEALED = {VARIABLE: KEY}

TYPED = """
from typing import Annotated
from msgspec import Meta
from lollms_kernel.contracts import Binding, BindingCard, InstanceSettings, Secret
from lollms_kernel.hookspecs import hookimpl

class Settings(InstanceSettings, frozen=True, kw_only=True):
    api_key: Annotated[Secret | None, Meta(description="The key.")] = None
    size: int = 1

class Remote(Binding):
    type_name = "remote_binding"
    card = BindingCard(display_name="R", version="1", author="a", description="d")
    Settings = Settings

    async def list_models(self):
        return []

    async def generate(self, request):
        yield

@hookimpl
def register_bindings(register):
    register(Remote)
"""


@pytest.fixture
def remote(workplace: Workplace) -> dict[str, str]:
    """A binding type with a secret, and an instance of it; the environment that has its plugin."""
    workplace.configure({"one": {"type": "remote_binding", "api_key": "s3cr3t"}})
    return install(workplace.root, "remote", TYPED)


def main_file(workplace: Workplace) -> Path:
    return workplace.root / "lollms_configs" / "main_config.yaml"


def instance_file(workplace: Workplace, name: str = "one") -> Path:
    return workplace.root / "lollms_configs" / "bindings" / f"{name}.yaml"


def values(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


# --- show and get ---


def test_show_prints_what_counts_with_the_defaults(workplace: Workplace) -> None:
    done = workplace.lollms("config", "show")

    shown = yaml.safe_load(done.stdout)
    assert done.returncode == 0
    assert shown["server"]["port"] == workplace.port
    assert shown["server"]["host"] == "127.0.0.1"
    assert done.stdout.startswith(f"# {main_file(workplace)}\n")
    assert yaml.safe_load(workplace.lollms("config", "show", "--file").stdout) == values(main_file(workplace))
    assert json.loads(workplace.lollms("config", "show", "--json").stdout) == shown


def test_show_and_get_mask_secrets_and_keep_references(workplace: Workplace, remote: dict[str, str]) -> None:
    keys = ["s3cr3t-1", {"name": "anna", "key": "s3cr3t-2"}, "${MY_KEY}"]
    workplace.configure(
        {"one": {"type": "remote_binding", "api_key": "s3cr3t-3"}},
        {
            "security": {"allowed_api_keys": keys, "encryption_key": KEY},
            "transports": {"x": {"hub_token": "s3cr3t-4"}},
        },
    )
    env = {**remote, "MY_KEY": "s3cr3t-5"}

    outputs = [
        workplace.lollms(*words, env=env)
        for words in (
            ("config", "show"),
            ("config", "show", "--file", "--json"),
            ("config", "show", "--instance", "one"),
            ("config", "get", "security"),
            ("config", "get", "transports.x.hub_token"),
            ("config", "get", "api_key", "--instance", "one"),
        )
    ]

    assert [done.returncode for done in outputs] == [0] * 6
    assert "s3cr3t" not in "".join(done.stdout + done.stderr for done in outputs)
    assert KEY not in "".join(done.stdout for done in outputs)
    shown = yaml.safe_load(outputs[0].stdout)["security"]
    assert shown["allowed_api_keys"] == ["***", {"name": "anna", "key": "***"}, "${MY_KEY}"]
    assert outputs[4].stdout == outputs[5].stdout == "***\n"


def test_get_reveals_what_it_is_asked_to(workplace: Workplace, remote: dict[str, str]) -> None:
    env = {**remote, **SEALED, "SIZE": "3"}
    workplace.lollms("config", "set", "size", "${SIZE}", "--instance", "one", env=env)
    assert is_encrypted(values(instance_file(workplace))["api_key"])

    reveal = ("--instance", "one", "--reveal")
    assert workplace.lollms("config", "get", "api_key", *reveal, env=env).stdout == "s3cr3t\n"
    assert workplace.lollms("config", "get", "size", *reveal, env=env).stdout == "3\n"
    wrong = workplace.lollms("config", "get", "api_key", *reveal, env={**env, VARIABLE: new_key()})
    assert wrong.returncode == 2
    assert "api_key: cannot be decrypted" in wrong.stderr


@pytest.mark.parametrize(
    ("path", "printed"),
    [
        ("server.port", None),
        ("server.allow_insecure_bind", "false\n"),
        ("defaults.tts_binding", "null\n"),
        ("bindings_map", "echo: dummy_binding\n"),
        ("server.allowed_hosts", "[]\n"),
        ("transports", "{}\n"),
        ("server.allowed_origins[0]", "http://localhost\n"),
    ],
)
def test_get_prints_one_value(workplace: Workplace, path: str, printed: str | None) -> None:
    assert workplace.lollms("config", "get", path).stdout == (printed or f"{workplace.port}\n")


def test_get_of_what_is_not_there_names_the_nearest(workplace: Workplace) -> None:
    done = workplace.lollms("config", "get", "server.prot")

    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no server.prot; did you mean `server.port`?" in done.stderr


# --- set and unset ---


def test_set_changes_one_value_keeps_comments_and_tells(workplace: Workplace) -> None:
    path = main_file(workplace)
    path.write_text("# mine\n" + path.read_text())

    done = workplace.lollms("config", "set", "server.host", "::1")

    assert done.stdout == '+ server.host: "::1"\n'
    assert done.stderr == f"{path} is saved.\n"
    assert path.read_text().startswith("# mine\n")
    assert values(path)["server"] == {"port": workplace.port, "host": "::1"}
    assert (path.parent / "main_config.yaml.bak").exists()


def test_set_writes_the_settings_of_an_instance(workplace: Workplace) -> None:
    done = workplace.lollms("config", "set", "chunks", "[a, 'b c']", "--instance", "echo")

    assert done.returncode == 0
    assert values(instance_file(workplace, "echo"))["chunks"] == ["a", "b c"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("server.port", "99999"), "server.port: is 99999, must be an integer from 1 to 65535."),
        (("server.prot", "1"), "server.prot: unknown key; did you mean `port`?"),
        (("server..port", "1"), "is no path of a key"),
        (("server.port.x", "1"), "server.port.x cannot be set: server.port is neither"),
        (("dealy", "1", "--instance", "echo"), "dealy: unknown key; did you mean `delay`?"),
        (("delay", "1", "--instance", "ecko"), 'bindings_map has no instance "ecko"'),
        (
            ("security.allowed_api_keys", "s3cr3t"),
            "security.allowed_api_keys: is text (not shown), must be a list",
        ),
    ],
)
def test_what_is_wrong_is_not_written(workplace: Workplace, words: tuple[str, ...], message: str) -> None:
    before = main_file(workplace).read_text()

    done = workplace.lollms("config", "set", *words)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "s3cr3t" not in done.stderr
    assert main_file(workplace).read_text() == before
    assert not list(workplace.root.rglob("*.bak"))


def test_a_secret_comes_through_stdin_or_a_hidden_prompt(
    workplace: Workplace, remote: dict[str, str]
) -> None:
    done = workplace.lollms("config", "set", "api_key", "--instance", "one", stdin="n3w-s3cr3t\n", env=remote)
    assert "s3cr3t" not in done.stdout + done.stderr
    assert values(instance_file(workplace))["api_key"] == "n3w-s3cr3t"

    with workplace.terminal("config", "set", "security.allowed_api_keys[0]") as terminal:
        seen = terminal.expect(r"security\.allowed_api_keys\[0\]: ")
        terminal.type("typed-s3cr3t\n")
        seen += terminal.expect("is saved")
        assert terminal.wait() == 0
    assert "typed" not in seen
    assert values(main_file(workplace))["security"]["allowed_api_keys"] == ["typed-s3cr3t"]


def test_unset_brings_the_default_back(workplace: Workplace) -> None:
    workplace.lollms("config", "unset", "server.port")

    assert workplace.lollms("config", "get", "server.port").stdout == "9601\n"
    assert workplace.lollms("config", "unset", "server.port").returncode == 2


def test_without_a_file_set_makes_one(workplace: Workplace) -> None:
    done = workplace.lollms("config", "set", "server.port", "9700", "--config-dir", "fresh")

    assert done.returncode == 0
    assert values(workplace.root / "fresh" / "main_config.yaml") == {
        "__version__": "2.0.0",
        "server": {"port": 9700},
    }


# --- check ---


def test_check_looks_at_every_file(workplace: Workplace) -> None:
    workplace.configure({"good": {}, "bad": {"tempo": 1}, "strange": {"type": "no_such_binding"}})

    done = workplace.lollms("config", "check")

    assert done.returncode == 2
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok") and line.endswith("good.yaml") for line in lines)
    assert any(line.startswith("FAIL") and "tempo: unknown key" in line for line in lines)
    assert any(line.startswith("FAIL") and "no_such_binding" in line for line in lines)


def test_check_of_a_sound_configuration_is_content(workplace: Workplace) -> None:
    done = workplace.lollms("config", "check")

    assert done.returncode == 0
    assert [line[:2] for line in done.stdout.splitlines()] == ["ok", "ok"]


def test_check_names_what_is_wrong_with_main_file_transports_exposure_and_keys(workplace: Workplace) -> None:
    workplace.configure(
        config={"server": {"host": "0.0.0.0"}, "transports": {"rest": {"enabled": 3}, "carrier_pigeon": {}}}
    )
    done = workplace.lollms("config", "check", env={VARIABLE: "short"})
    assert done.returncode == 2
    for text in (
        "no API key is set",
        "transports.rest: enabled: is 3, must be true or false.",
        "transports.carrier_pigeon: no installed plugin provides this protocol",
        f"{VARIABLE} is no encryption key",
    ):
        assert text in done.stdout

    main_file(workplace).write_text("server: {prot: 1}\n")
    done = workplace.lollms("config", "check")
    assert done.returncode == 2
    assert "server.prot: unknown key" in done.stdout


# --- migrate and convert ---


def test_migrate_shows_asks_and_writes(workplace: Workplace) -> None:
    path = main_file(workplace)
    content = {
        **values(path),
        "__version__": "0.3.2",
        "server": {"port": 9601, "host": "::1", "reload": True},
    }
    path.write_text("# mine\n" + yaml.safe_dump(content))
    before = path.read_text()

    dry = workplace.lollms("config", "migrate", "--dry-run")
    assert "server.reload is not used any more." in dry.stdout
    assert "- server.reload: true" in dry.stdout
    no = workplace.lollms("config", "migrate", stdin="n\n")
    assert (no.returncode, path.read_text()) == (1, before)

    yes = workplace.lollms("config", "migrate", "--yes")

    assert yes.returncode == 0
    assert path.read_text().startswith("# mine\n")
    assert values(path)["__version__"] == "2.0.0"
    assert "reload" not in values(path)["server"]
    assert "up to date" in workplace.lollms("config", "migrate").stderr


def test_migrate_takes_over_the_file_of_0_2(workplace: Workplace) -> None:
    old = workplace.root / "config.toml"
    old.write_text(
        '[security]\nallowed_api_keys = ["s3cr3t"]\n[bindings.a]\ntype = "dummy_binding"\ndelay = 1\n'
    )

    done = workplace.lollms("config", "migrate", "--from", "config.toml", "--yes", "--config-dir", "fresh")

    assert done.returncode == 0
    assert "s3cr3t" not in done.stdout + done.stderr
    assert (
        workplace.lollms("config", "get", "delay", "--instance", "a", "--config-dir", "fresh").stdout == "1\n"
    )
    assert sorted(path.name for path in (workplace.root / "fresh").rglob("*.toml")) == [
        "a.toml",
        "main_config.toml",
    ]
    gone = workplace.lollms("config", "migrate", "--from", "gone.toml", "--config-dir", "other")
    assert (gone.returncode, "gone.toml cannot be read" in gone.stderr) == (2, True)


def test_convert_rewrites_one_file_or_all(workplace: Workplace) -> None:
    before = workplace.lollms("config", "show", "--json").stdout
    folder = main_file(workplace).parent

    assert workplace.lollms("config", "convert", "toml").returncode == 0
    assert workplace.lollms("config", "convert", "json", "--instance", "echo").returncode == 0
    assert workplace.lollms("config", "show", "--json").stdout == before
    done = workplace.lollms("config", "convert", "sqlite", "--all")

    assert done.returncode == 0
    assert workplace.lollms("config", "show", "--json").stdout == before
    assert workplace.lollms("config", "set", "server.port", "9700").returncode == 0
    with closing(sqlite3.connect(folder / "main_config.db")) as database:
        assert database.execute("SELECT value FROM config WHERE key = 'server.port'").fetchall() == [
            ("9700",)
        ]
    assert sorted(path.name for path in folder.rglob("*.db")) == ["echo.db", "main_config.db"]
    assert workplace.lollms("config", "convert", "sqlite").returncode == 2


# --- secrets ---


def test_encrypt_needs_a_key_and_encrypts_everything(workplace: Workplace, remote: dict[str, str]) -> None:
    done = workplace.lollms("config", "encrypt", env=remote)
    assert done.returncode == 2
    assert "There is no encryption key" in done.stderr

    assert "secret in clear" in workplace.lollms("config", "check", env={**remote, **SEALED}).stdout
    done = workplace.lollms("config", "encrypt", env={**remote, **SEALED})

    assert done.returncode == 0
    assert f"{instance_file(workplace)}: 1 encrypted" in done.stdout
    assert "s3cr3t" not in "".join(path.read_text() for path in workplace.root.rglob("*.yaml*"))
    assert "in clear" not in workplace.lollms("config", "check", env={**remote, **SEALED}).stdout
    wrong = workplace.lollms("config", "check", env=remote)
    assert wrong.returncode == 2
    assert "api_key: is encrypted, and neither" in wrong.stdout


def test_rotate_key_puts_a_key_into_the_file_or_prints_it(
    workplace: Workplace, remote: dict[str, str]
) -> None:
    done = workplace.lollms("config", "rotate-key", env=remote)
    assert (done.returncode, done.stdout) == (0, "")
    first = values(main_file(workplace))["security"]["encryption_key"]
    assert first not in done.stderr
    assert is_encrypted(values(instance_file(workplace))["api_key"])
    workplace.lollms("config", "unset", "security.encryption_key", env=remote)

    done = workplace.lollms("config", "rotate-key", env={**remote, VARIABLE: first})
    second = done.stdout.strip()
    assert done.returncode == 0
    assert second != first
    assert second not in "".join(path.read_text() for path in workplace.root.rglob("*.yaml*"))
    assert workplace.lollms("config", "check", env={**remote, VARIABLE: second}).returncode == 0

    given = workplace.lollms(
        "config", "rotate-key", "--key-from", "-", stdin=KEY, env={**remote, VARIABLE: second}
    )
    assert (given.returncode, given.stdout) == (0, "")
    assert workplace.lollms("config", "check", env={**remote, **SEALED}).returncode == 0


# --- schema ---


def test_schema_prints_that_of_the_main_file_or_of_a_binding_type(
    workplace: Workplace, remote: dict[str, str]
) -> None:
    main = json.loads(workplace.lollms("config", "schema").stdout)
    typed = json.loads(workplace.lollms("config", "schema", "remote_binding", env=remote).stdout)

    assert "bindings_map" in main["properties"]
    assert typed["properties"]["api_key"]["description"] == "The key."
    assert workplace.lollms("config", "schema", "no_such_binding").returncode == 2


def test_two_at_once_lose_nothing(workplace: Workplace) -> None:
    running = [
        workplace.start("config", "set", f"personalities_config.p{n}.enabled", "false") for n in range(4)
    ]
    codes = []
    for process in running:
        _, err = process.communicate(timeout=60)
        codes.append(process.returncode)
        assert process.returncode == 0 or b"was changed by somebody else" in err

    kept = values(main_file(workplace))["personalities_config"]
    assert len(kept) == codes.count(0) >= 1
    assert not [name for name in os.listdir(main_file(workplace).parent) if name.endswith(".tmp")]
