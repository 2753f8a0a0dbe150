"""Keys that change: all files move together, and whatever happens in between can be mended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lollms_kernel.config import convert, load_config, read_instance
from lollms_kernel.config.encryption import VARIABLE, is_encrypted, new_key
from lollms_kernel.config.rotation import encrypt, open_all, rotate
from lollms_kernel.config.store import save_all
from lollms_kernel.contracts import InstanceSettings, Secret
from lollms_kernel.errors import ConfigError

OLD, NEW = new_key(), new_key()
LIMIT = 60.0


class Settings(InstanceSettings, frozen=True, kw_only=True):
    api_key: Secret | None = None


KINDS = {"t": Settings}

_DIE_AFTER = """
import os, signal, sys
from pathlib import Path
from lollms_kernel.config.rotation import rotate

renames = int(sys.argv[2])
rename = os.replace

def rename_or_die(source, target):
    global renames
    if renames == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    renames -= 1
    rename(source, target)

os.replace = rename_or_die
rotate(Path(sys.argv[1]), {}, sys.argv[3])
"""


def write(folder: Path, **security: Any) -> None:
    (folder / "bindings").mkdir(exist_ok=True)
    main = {"bindings_map": {"one": "t", "two": "t", "none": "t"}, "security": security}
    (folder / "main_config.yaml").write_text("# mine\n" + yaml.safe_dump(main))
    for name in ("one", "two"):
        (folder / "bindings" / f"{name}.yaml").write_text(f"api_key: s3cr3t-{name} # of {name}\n")


def secrets(folder: Path, environ: dict[str, str] | None = None) -> list[str | None]:
    """What the server would read."""
    loaded = load_config(folder, environ or {})
    found = [
        convert(read_instance(loaded, name, Settings, environ or {}), Settings, "x").api_key
        for name in ("one", "two")
    ]
    return [*map(str, loaded.main.security.allowed_api_keys), *found]


def texts(folder: Path, pattern: str = "*") -> str:
    """All files of the configuration in one text."""
    return "".join(path.read_text() for path in sorted(folder.rglob(pattern)) if path.is_file())


SECRETS = ["k3y", "s3cr3t-one", "s3cr3t-two"]


def test_the_first_key_encrypts_everything_and_goes_into_the_main_file(tmp_path: Path) -> None:
    write(tmp_path, allowed_api_keys=["k3y"])

    rotation = rotate(tmp_path, KINDS, NEW, {})

    assert rotation.key_in_main_file
    assert [path.name for path in rotation.files] == ["main_config.yaml", "one.yaml", "two.yaml"]
    assert not [secret for secret in SECRETS if secret in texts(tmp_path)]
    assert "# mine" in texts(tmp_path)
    assert "# of one" in texts(tmp_path)
    assert secrets(tmp_path) == SECRETS
    assert load_config(tmp_path, {}).main.security.encryption_key == NEW


def test_afterwards_nothing_is_left_that_the_old_key_opens(tmp_path: Path) -> None:
    write(tmp_path, allowed_api_keys=["k3y"])
    rotate(tmp_path, KINDS, OLD, {})

    rotate(tmp_path, KINDS, NEW, {})

    assert OLD not in texts(tmp_path)
    assert secrets(tmp_path) == SECRETS
    with pytest.raises(ConfigError, match="cannot be decrypted"):
        secrets(tmp_path, {VARIABLE: OLD})
    for backup in tmp_path.rglob("*.bak"):
        os.replace(backup, backup.with_suffix(""))
    assert secrets(tmp_path) == SECRETS


def test_a_key_of_the_environment_never_gets_into_a_file(tmp_path: Path) -> None:
    write(tmp_path, allowed_api_keys=["k3y"])

    rotation = rotate(tmp_path, KINDS, NEW, {VARIABLE: OLD})

    assert not rotation.key_in_main_file
    assert NEW not in texts(tmp_path)
    assert secrets(tmp_path, {VARIABLE: NEW}) == SECRETS


def test_a_key_that_is_a_reference_stays_one(tmp_path: Path) -> None:
    write(tmp_path, allowed_api_keys=["k3y"], encryption_key="${MY_KEY}")

    rotation = rotate(tmp_path, KINDS, NEW, {"MY_KEY": OLD})

    assert not rotation.key_in_main_file
    assert "${MY_KEY}" in texts(tmp_path)
    assert secrets(tmp_path, {"MY_KEY": NEW}) == SECRETS


def test_without_the_old_key_nothing_is_changed(tmp_path: Path) -> None:
    write(tmp_path, allowed_api_keys=["k3y"])
    rotate(tmp_path, KINDS, OLD, {VARIABLE: OLD})
    file = tmp_path / "bindings" / "one.yaml"
    before = texts(tmp_path)

    with pytest.raises(ConfigError, match="cannot be decrypted with the key of LOLLMS_ENCRYPTION_KEY"):
        rotate(tmp_path, KINDS, NEW, {VARIABLE: NEW})

    assert texts(tmp_path) == before
    assert is_encrypted(yaml.safe_load(file.read_text())["api_key"])


def test_a_key_that_is_none_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write(tmp_path)
    before = texts(tmp_path)

    with pytest.raises(ConfigError, match="is no encryption key"):
        rotate(tmp_path, KINDS, "short", {})

    assert texts(tmp_path) == before


@pytest.mark.parametrize("where", ["main", "environment"])
@pytest.mark.parametrize("renames", range(9))
def test_a_machine_that_dies_in_between_loses_nothing(tmp_path: Path, renames: int, where: str) -> None:
    write(tmp_path, allowed_api_keys=["k3y"], **({"encryption_key": OLD} if where == "main" else {}))
    environ = {} if where == "main" else {VARIABLE: OLD}
    documents = open_all(tmp_path, KINDS, environ)
    encrypt(documents)
    save_all(documents)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOLLMS_")}

    done = subprocess.run(
        [sys.executable, "-c", _DIE_AFTER, str(tmp_path), str(renames), NEW],
        env={**kept, **environ},
        timeout=LIMIT,
    )

    assert done.returncode in (-signal.SIGKILL, 0)
    both = {} if where == "main" else {VARIABLE: f"{NEW},{OLD}"}
    assert secrets(tmp_path, both) == SECRETS
    rotate(tmp_path, KINDS, NEW, both)
    assert secrets(tmp_path, {} if where == "main" else {VARIABLE: NEW}) == SECRETS
    assert OLD not in texts(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_backups_in_another_format_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    stale = tmp_path / "main_config.toml.bak"
    stale.write_text("")

    assert rotate(tmp_path, KINDS, NEW, {}).old_backups == (stale,)


def test_encrypting_needs_a_key_and_says_how_much_it_found(tmp_path: Path) -> None:
    write(tmp_path, allowed_api_keys=["k3y"])
    with pytest.raises(ConfigError, match="There is no encryption key") as caught:
        encrypt(open_all(tmp_path, KINDS, {}))
    assert "lollms config rotate-key" in str(caught.value.hint)

    documents = open_all(tmp_path, KINDS, {VARIABLE: OLD})
    counts = encrypt(documents)
    save_all(documents)

    assert [(path.name, count) for path, count in counts.items()] == [
        ("main_config.yaml", 1),
        ("one.yaml", 1),
        ("two.yaml", 1),
    ]
    assert secrets(tmp_path, {VARIABLE: OLD}) == SECRETS
    assert not [secret for secret in SECRETS if secret in texts(tmp_path)], "backups included"
    assert set(encrypt(open_all(tmp_path, KINDS, {VARIABLE: OLD})).values()) == {0}
