"""No secret of a configured server is in any response, log line or error, whatever a plugin does with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lollms_kernel.config.encryption import VARIABLE, Keys, new_key
from lollms_kernel.testing import ServerProcess

LIMIT = 60.0

LEAKY = '''
import logging
from typing import Any

import msgspec

from lollms_kernel.contracts import Binding, BindingCard, InstanceSettings, Secret
from lollms_kernel.errors import GenerationFailed
from lollms_kernel.hookspecs import hookimpl
from lollms_kernel.types import Failed, ModelInfo, TextDelta


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str = ""
    password: Secret = ""


class Settings(InstanceSettings, frozen=True, kw_only=True):
    api_key: Secret | None = None
    accounts: tuple[Account, ...] = ()
    extra: dict[str, Any] = {}
    base_url: str = ""
    size: int = 0


class Leaky(Binding):
    """Says what it knows, in every way that a careless plugin might."""

    type_name = "leaky_binding"
    card = BindingCard(display_name="Leaky", version="1", author="a", description="d")
    Settings = Settings

    async def open(self):
        logging.getLogger("leaky").warning("opened with %s", self.settings)
        if self.settings.size == 13:
            raise RuntimeError(f"cannot open with {self.settings}")

    async def list_models(self):
        return [ModelInfo(name="m")]

    async def generate(self, request):
        known = f"{self.settings.api_key} {self.settings.accounts} {self.settings.extra} {self.settings.base_url}"
        match request.prompt:
            case "exception":
                raise RuntimeError(known)
            case "value":
                raise ValueError(known)
            case "own":
                raise GenerationFailed(known, hint=known)
            case "late":
                yield TextDelta("first")
                raise RuntimeError(known)
            case "failed":
                yield TextDelta("first")
                yield Failed("generation_failed", known, known)
            case "log":
                try:
                    raise KeyError(known)
                except KeyError:
                    logging.getLogger("leaky").exception("oh no: %r", known)
        yield TextDelta("done")


@hookimpl
def register_bindings(register):
    register(Leaky)
'''

WAYS = ("exception", "value", "own", "late", "failed", "log")
PLAIN, SEALED, FROM_VARIABLE, WRONG = "plain", "sealed", "variable", "wrong"

# Long and odd enough to be nothing else, with what JSON, YAML and Python escape.
secrets = st.text(st.sampled_from("abcXYZ019-_/+=.\"'\\é€ $"), min_size=5, max_size=30).map(
    lambda text: f"s3{text.strip()}cr3t"
)
plain_keys = st.from_regex(r"s3[A-Za-z0-9_-]{8,30}cr3t", fullmatch=True)


def settings_of(text: Any) -> dict[str, Any]:
    """Settings of the leaky binding with a secret everywhere, each written as `text` has it."""
    return {
        "type": "leaky_binding",
        "api_key": text(0),
        "accounts": [{"user": "anna", "password": text(1)}],
        "extra": {"hub_token": text(2)},
    }


def install(root: Path) -> dict[str, str]:
    """Put the leaky plugin where Python finds it; the environment that does."""
    info = root / "leaky-1.0.dist-info"
    info.mkdir()
    (root / "leaky.py").write_text(LEAKY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lollms]\nleaky = leaky\n")
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {"PYTHONPATH": path, "LOLLMS_LOAD_PLUGINS": "leaky"}


def escaped(text: str) -> str:
    """The text as a file has to hold it to mean what it says."""
    return text.replace("${", "$${")


def everything_said(server: ServerProcess, key: str) -> Iterator[str]:
    """What the server answers to whatever one may ask it."""
    headers = {"X-API-Key": key}
    with httpx.Client(base_url=server.url, headers=headers, timeout=LIMIT) as client:
        described = client.get("/openapi.json").json()
        for path, methods in described["paths"].items():
            for name in (PLAIN, SEALED, FROM_VARIABLE, WRONG, "no-such-one"):
                if "get" in methods:
                    yield client.get(
                        path.replace("{binding_instance_name}", name).replace("{name}", name)
                    ).text
        for name in (PLAIN, SEALED, FROM_VARIABLE, WRONG):
            for way in WAYS:
                for stream in (False, True):
                    item = {"type": "text", "role": "user_prompt", "data": way}
                    body = {"input_data": [item], "binding_name": name, "stream": stream}
                    yield client.post("/api/v1/generate", json=body).text
            yield client.post("/api/v1/tokenize", json={"text": "x", "binding_name": name}).text
        yield client.get("/api/v1/list_bindings", headers={"X-API-Key": key + "x"}).text


def commands(server: ServerProcess, env: dict[str, str]) -> Iterator[str]:
    """What our commands print about that configuration."""
    for words in (
        ("config", "show"),
        ("config", "show", "--file"),
        ("config", "show", "--instance", PLAIN),
        ("config", "show", "--instance", SEALED),
        ("config", "get", "security"),
        ("config", "check"),
        ("keys", "list", "--json"),
        ("bindings", "--json"),
        ("doctor", "--json"),
        ("config", "set", "server.port", "99999"),
        ("config", "set", "accounts", "[1]", "--instance", PLAIN),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "lollms_kernel", *words, "--config-dir", str(server.config_dir)],
            env={**os.environ, **env},
            cwd=server.root,
            capture_output=True,
            timeout=LIMIT,
        )
        yield done.stdout.decode() + done.stderr.decode()


@pytest.mark.long
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    own=st.lists(secrets, min_size=7, max_size=7, unique=True),
    keys=st.lists(plain_keys, min_size=3, max_size=3, unique=True),
)
def test_no_secret_leaves_the_server(tmp_path_factory: Any, own: list[str], keys: list[str]) -> None:
    root = tmp_path_factory.mktemp("secrets")
    sealing, lost = new_key(), new_key()
    env = {**install(root), VARIABLE: sealing, "THE_KEY": own[5], "THE_TOKEN": own[6], "API_KEY": keys[2]}
    instances = {
        PLAIN: settings_of(lambda n: escaped(own[n])),
        SEALED: {
            **settings_of(lambda n: Keys(sealing, "").encrypt(own[n])),
            "base_url": Keys(sealing, "").encrypt(own[3]),
        },
        FROM_VARIABLE: {
            **settings_of(lambda n: "${THE_KEY}"),
            "base_url": "http://user:${THE_TOKEN}@x",
            "size": 13,
        },
        WRONG: settings_of(lambda n: Keys(lost, "").encrypt(own[4])),
    }
    allowed = [keys[0], {"name": "anna", "key": Keys(sealing, "").encrypt(keys[1])}, "${API_KEY}"]
    config = {"security": {"allowed_api_keys": allowed}, "defaults": {"ttt_binding": PLAIN}}

    with ServerProcess(config, instances, root=root, env=env) as server:
        said = list(everything_said(server, keys[1]))
        shown = list(commands(server, env))
    logged = server.log()

    texts = [*said, *shown, logged]
    for secret in [*own, *keys, sealing]:
        for form in (secret, repr(secret)[1:-1], secret.encode("unicode_escape").decode()):
            assert not [text for text in texts if form in text], f"{form!r} was said"
    assert logged.count("oh no") == 2 * 2, "the log itself works"
    assert "cannot be decrypted with the key of LOLLMS_ENCRYPTION_KEY" in "".join(said)
    assert any("RuntimeError: *** (Account(" in text for text in said), "errors are told, without the secrets"
