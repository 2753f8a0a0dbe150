"""Files replaced as a whole, also by writers that die in the middle or write at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lollms_kernel.config.atomic import Change, replace_files
from lollms_kernel.config.store import open_main, read
from lollms_kernel.errors import ConfigError

LIMIT = 60.0

OLD = "server: {port: 9700} # old\n"

_DIE_BEFORE_RENAME = """
import os, signal, sys
from pathlib import Path
from lollms_kernel.config.store import open_main

renames = int(sys.argv[2])
rename = os.replace

def rename_or_die(source, target):
    global renames
    if renames == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    renames -= 1
    rename(source, target)

os.replace = rename_or_die
document = open_main(Path(sys.argv[1]), {})
document.set("server.port", 9800)
document.save()
"""

_COUNT_UP = """
import sys
from pathlib import Path
from lollms_kernel.config.store import read
from lollms_kernel.errors import ConfigError

wanted, lost = int(sys.argv[2]), 0
while wanted:
    document = read(Path(sys.argv[1]))
    document.set("count", document.get("count") + 1)
    try:
        document.save()
    except ConfigError as error:
        assert "changed by somebody else" in error.message, error.message
        lost += 1
    else:
        wanted -= 1
print(lost)
"""


def write(folder: Path) -> Path:
    path = folder / "main_config.yaml"
    path.write_text(OLD)
    return path


@pytest.mark.parametrize("renames", [0, 1], ids=["before the backup", "before the file"])
def test_a_writer_that_dies_before_it_renames_leaves_the_old_file(tmp_path: Path, renames: int) -> None:
    path = write(tmp_path)

    done = subprocess.run(
        [sys.executable, "-c", _DIE_BEFORE_RENAME, str(tmp_path), str(renames)], timeout=LIMIT
    )

    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == OLD
    left = [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    assert left
    assert all((tmp_path / name).stat().st_mode & 0o077 == path.stat().st_mode & 0o077 for name in left)


def test_what_a_dead_writer_left_is_no_obstacle_and_goes_with_the_next_save(tmp_path: Path) -> None:
    path = write(tmp_path)
    subprocess.run([sys.executable, "-c", _DIE_BEFORE_RENAME, str(tmp_path), "1"], timeout=LIMIT)

    document = open_main(tmp_path, {})
    document.set("server.port", 9900)
    document.save()

    assert path.read_text() == OLD.replace("9700", "9900")
    assert sorted(os.listdir(tmp_path)) == ["main_config.yaml", "main_config.yaml.bak"]


def test_of_many_writers_at_once_none_loses_what_another_wrote(tmp_path: Path) -> None:
    path = tmp_path / "count.yaml"
    path.write_text("count: 0 # of all\n")
    command = [sys.executable, "-c", _COUNT_UP, str(path), "25"]

    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outcomes = [writer.communicate(timeout=LIMIT) for writer in writers]

    assert [writer.returncode for writer in writers] == [0, 0, 0, 0]
    assert all(int(out) >= 0 for out, _ in outcomes)
    assert path.read_text() == "count: 100 # of all\n"
    assert read(tmp_path / "count.yaml").get("count") == 100


def test_readers_see_whole_files_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "count.yaml"
    path.write_text("count: 0\n")
    writer = subprocess.Popen([sys.executable, "-c", _COUNT_UP, str(path), "50"], stdout=subprocess.DEVNULL)

    seen = set()
    while writer.poll() is None:
        seen.add(read(path).get("count"))

    assert writer.returncode == 0
    assert seen <= set(range(51))


def test_either_all_files_are_written_or_none(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")

    with pytest.raises(ConfigError, match="two was changed by somebody else"):
        replace_files([Change(path=one, data=b"11", before=b"1"), Change(path=two, data=b"22", before=b"x")])

    assert sorted(os.listdir(tmp_path)) == ["one", "two"]
    assert (one.read_bytes(), two.read_bytes()) == (b"1", b"2")


def test_a_file_may_change_twice_in_one_go(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")

    replace_files(
        [Change(path=path, data=b"2", before=b"1"), Change(path=path, data=b"3", before=b"2", backup=b"kept")]
    )

    assert path.read_bytes() == b"3"
    assert (tmp_path / "file.bak").read_bytes() == b"kept"


def test_a_writer_waits_for_another_one_and_then_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    from lollms_kernel.config import atomic

    monkeypatch.setattr(atomic, "LOCK_TIMEOUT", 0.05)
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="Another program has been writing in"):
            replace_files([Change(path=tmp_path / "file", data=b"1", before=None)])
    finally:
        os.close(handle)
    assert os.listdir(tmp_path) == []
