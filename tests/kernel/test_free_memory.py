"""How much memory is free, as Linux tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lollms_kernel.free_memory import free_memory

MIB = 2**20


def machine(root: Path, cgroup: str, **groups: dict[str, str]) -> Path:
    """A root with 8 GiB available; `groups` are files of folders below `sys/fs/cgroup`, by path with `__` for `/`."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {8 * 2**20} kB\n")
    (root / "proc" / "self" / "cgroup").write_text(cgroup)
    for path, files in groups.items():
        folder = root / "sys/fs/cgroup" / path.replace("__", "/")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / f"memory.{name}").write_text(text)
    return root


def two(limit: object, current: int, inactive: int = 0) -> dict[str, str]:
    return {
        "max": f"{limit}\n",
        "current": f"{current}\n",
        "stat": f"anon 5\ninactive_file {inactive}\nfile 7\n",
    }


def test_without_limits_the_machine_says_it(tmp_path: Path) -> None:
    assert free_memory(machine(tmp_path, "0::/a\n", a=two("max", 1))) == 8 * 2**30


def test_nobody_says_anything(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None


def test_a_limit_leaves_what_is_not_used_and_files_that_can_be_dropped(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", **{"": two(512 * MIB, 500 * MIB, 100 * MIB)})
    assert free_memory(root) == 112 * MIB


@pytest.mark.parametrize("inner", ["max", 4096 * MIB])
def test_limits_of_groups_above_count_too(tmp_path: Path, inner: object) -> None:
    root = machine(tmp_path, "0::/a/b\n", a__b=two(inner, 0), a=two(300 * MIB, 100 * MIB))
    assert free_memory(root) == 200 * MIB


def test_more_in_use_than_allowed_is_nothing_free(tmp_path: Path) -> None:
    assert free_memory(machine(tmp_path, "0::/a\n", a=two(MIB, 2 * MIB))) == 0


def test_version_1_has_a_group_for_memory(tmp_path: Path) -> None:
    files = {
        "limit_in_bytes": f"{600 * MIB}\n",
        "usage_in_bytes": f"{400 * MIB}\n",
        "stat": f"inactive_file 1\ntotal_inactive_file {50 * MIB}\n",
    }
    root = machine(tmp_path, "3:cpuset:/\n4:memory:/job\n0::/\n", memory__job=files)
    assert free_memory(root) == 250 * MIB
