"""Downloads and processes that die, restart, or share one folder."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lollms_kernel.downloads import Downloads, Wanted
from lollms_kernel.errors import QueueFull, Unavailable
from lollms_kernel.testing.fakes.hub import FRAME, FakeHub

from .conftest import FILE, REPO, content
from .test_downloads import Make, until

LIMIT = 60.0

CHILD = """
import asyncio, sys
from pathlib import Path
from lollms_kernel.downloads import Downloads, Wanted
from lollms_kernel.errors import QueueFull, Unavailable

async def main(folder, hub, repo, file):
    async with Downloads(Path(folder), hub, poll=0.05) as downloads:
        print((await downloads.ensure(Wanted(repo, file))).name, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def pulling(folder: Path, hub: FakeHub) -> Iterator[subprocess.Popen[str]]:
    """Another process that downloads the model."""
    command = [sys.executable, "-c", CHILD, str(folder), hub.url, REPO, FILE]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


async def wait_for(condition: Callable[[], bool]) -> None:
    """Look at a file of another process until it is as it should be."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - another process gives no event
            await asyncio.sleep(0.01)


def part_size(downloads: Downloads) -> int:
    part = downloads.places.part(REPO, FILE)
    return part.stat().st_size if part.exists() else 0


async def test_killed_in_the_middle_it_goes_on_from_the_same_byte(
    hub: FakeHub, make_downloads: Make, tmp_path: Path
) -> None:
    hub.storage.frame_delay = 0.02
    downloads = await make_downloads(everything=False)
    with pulling(tmp_path / "gguf", hub) as child:
        await wait_for(lambda: part_size(downloads) > 4 * FRAME)
        child.send_signal(signal.SIGKILL)
        assert child.wait(LIMIT) == -signal.SIGKILL
    left = part_size(downloads)
    row = await downloads.get(REPO, FILE)
    assert row is not None
    assert row.status == "downloading", "nobody could say that it ended"
    assert not downloads.path(REPO, FILE).exists()
    hub.storage.frame_delay = 0.0

    with pulling(tmp_path / "gguf", hub) as child:
        said, wrong = await asyncio.to_thread(child.communicate, timeout=LIMIT)

    assert said == f"{REPO}/{FILE}\n", wrong
    assert 0 < left < len(hub.repos[REPO].files[FILE])
    assert [request.headers.get("range") for request in hub.storage.received] == [None, f"bytes={left}-"]
    assert downloads.path(REPO, FILE).read_bytes() == hub.repos[REPO].files[FILE]


async def test_two_processes_fetch_a_file_once(hub: FakeHub, make_downloads: Make, tmp_path: Path) -> None:
    hub.storage.frame_delay = 0.02
    downloads = await make_downloads()
    with pulling(tmp_path / "gguf", hub) as child:
        await hub.storage.request_to("/blobs")

        pulled = await downloads.ensure(Wanted(REPO, FILE))
        said, wrong = await asyncio.to_thread(child.communicate, timeout=LIMIT)

    assert said == f"{pulled.name}\n", wrong
    assert len(hub.storage.received) == 1
    assert pulled.paths[0].read_bytes() == hub.repos[REPO].files[FILE]


async def test_a_pause_reaches_another_process(hub: FakeHub, make_downloads: Make, tmp_path: Path) -> None:
    hub.storage.frame_delay = 0.05
    downloads = await make_downloads(everything=False)
    with pulling(tmp_path / "gguf", hub) as child:
        await wait_for(lambda: part_size(downloads) > FRAME)

        await downloads.pause(REPO, FILE)
        _, wrong = await asyncio.to_thread(child.communicate, timeout=LIMIT)

    assert "was paused" in wrong
    assert (await hub.storage.request_to("/blobs")).left.wait(LIMIT), "the connection is closed"


async def test_closed_in_an_orderly_way_it_waits_in_the_queue_for_the_next_start(
    hub: FakeHub, make_downloads: Make
) -> None:
    hub.storage.frame_delay = 0.05
    first = await make_downloads()
    await first.enqueue(REPO, FILE)
    await wait_for(lambda: part_size(first) > FRAME)
    await first.close()
    left = part_size(first)
    hub.storage.frame_delay = 0.0

    second = await make_downloads()
    await until(second, "complete")

    assert hub.storage.received[-1].headers["range"] == f"bytes={left}-"


# --- what a start does with each state (the table of Wingman's download life cycle) ------------------------------


def write_row(downloads: Downloads, file: str, status: str, **values: Any) -> None:
    columns = {"repo": REPO, "file": file, "status": status, "created": 1, "updated": 1, **values}
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    with sqlite3.connect(downloads.places.records) as connection:
        connection.execute(
            f"INSERT OR REPLACE INTO downloads ({names}) VALUES ({marks})", [*columns.values()]
        )
    connection.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("downloading", "queued"),
        ("error", "queued"),
        ("paused", "queued"),
        ("queued", "queued"),
        ("cancelled", None),
        ("unknown", None),
        ("a state of another version", None),
        ("complete", "complete"),
    ],
)
async def test_a_start_restores_what_was_left(
    hub: FakeHub, make_downloads: Make, before: str, after: str | None
) -> None:
    maker = await make_downloads(everything=False)
    await maker.ensure(Wanted(REPO, "README.md"))  # there is a database now
    write_row(maker, FILE, before, downloaded=1000, total=5000, error="reason" if before == "error" else "")
    if before == "complete":
        maker.path(REPO, FILE).write_bytes(b"model")
    await maker.close()

    records = Downloads(maker.places.folder, hub.url)
    await records._restore()
    row = await records.get(REPO, FILE)
    await records.close()

    assert (row.status if row else None) == after
    if row is not None and before in ("downloading", "error", "paused"):
        assert (row.downloaded, row.error, row.created) == (0, "", 1)
    if before == "queued":
        assert row is not None
        assert row.downloaded == 1000


async def test_a_start_forgets_models_whose_file_is_gone_and_parts_that_belong_to_nobody(
    hub: FakeHub, make_downloads: Make
) -> None:
    maker = await make_downloads(everything=False)
    pulled = await maker.ensure(Wanted(REPO, FILE))
    kept = await maker.ensure(Wanted(REPO, "README.md"))
    pulled.paths[0].unlink()
    orphan = maker.places.own / "0123.part"
    orphan.write_bytes(b"left behind")
    somebodys = maker.places.folder / "maker" / "alpha-GGUF" / "mine.gguf"
    somebodys.write_bytes(b"not ours")
    await maker.close()

    again = await make_downloads()

    assert [row.file for row in await again.all()] == ["README.md"]
    assert not orphan.exists()
    assert somebodys.exists(), "files that no download has made are nobody's business"
    assert kept.paths[0].exists()


async def test_a_start_leaves_alone_what_another_process_is_fetching(
    hub: FakeHub, make_downloads: Make, tmp_path: Path
) -> None:
    hub.storage.frame_delay = 0.02
    looking = await make_downloads(everything=False)
    with pulling(tmp_path / "gguf", hub) as child:
        await wait_for(lambda: part_size(looking) > FRAME)

        server = await make_downloads()
        row = await server.get(REPO, FILE)
        said, wrong = await asyncio.to_thread(child.communicate, timeout=LIMIT)

    assert row is not None
    assert row.status == "downloading"
    assert said, wrong
    assert len(hub.storage.received) == 1


# --- the command line ---------------------------------------------------------------------------------------


def lollms(root: Path, hub: FakeHub, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder whose configuration knows the hub."""
    folder = root / "lollms_configs"
    folder.mkdir(exist_ok=True)
    (folder / "main_config.yaml").write_text(json.dumps({"transports": {"wingman": {"hub_url": hub.url}}}))
    return subprocess.run(
        [sys.executable, "-m", "lollms_kernel", *arguments],
        cwd=root,
        env={**os.environ, "LOLLMS_LOAD_PLUGINS": ""},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def test_pull_list_and_remove_on_the_command_line(hub: FakeHub, tmp_path: Path) -> None:
    pulled = lollms(tmp_path, hub, "pull", REPO, "--json")
    file = tmp_path / "models" / "gguf" / REPO / FILE
    assert pulled.returncode == 0, pulled.stderr
    assert json.loads(pulled.stdout) == [{"name": f"{REPO}/{FILE}", "paths": [str(file)]}]
    assert file.read_bytes() == hub.repos[REPO].files[FILE]

    told = json.loads(lollms(tmp_path, hub, "models", "info", REPO, "--json").stdout)
    assert told[0]["status"] == "complete"
    assert told[0]["quantization"] == "Q4_K_M"

    removed = lollms(tmp_path, hub, "models", "rm", f"{REPO}:Q4_K_M")
    assert removed.stdout == f"removed {REPO}/{FILE}\n", removed.stderr
    assert not file.exists()
    again = lollms(tmp_path, hub, "models", "rm", REPO)
    assert again.returncode == 1
    assert "was not downloaded" in again.stderr


def test_pull_says_what_is_wrong(hub: FakeHub, tmp_path: Path) -> None:
    failed = lollms(tmp_path, hub, "pull", f"{REPO}:Q2_K")

    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr == f"lollms: The hub has no '{REPO}:Q2_K'. Its quantizations: Q4_K_M.\n"


def test_interrupted_it_keeps_what_is_here_and_the_same_command_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    hub.storage.frame_delay = 0.05
    lollms(tmp_path, hub, "ps")
    places = Downloads(tmp_path / "models" / "gguf", hub.url).places
    with subprocess.Popen(
        [sys.executable, "-m", "lollms_kernel", "pull", REPO],
        cwd=tmp_path,
        env={**os.environ, "LOLLMS_LOAD_PLUGINS": ""},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            asyncio.run(
                wait_for(lambda: any(part.stat().st_size > FRAME for part in places.own.glob("*.part")))
            )
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=LIMIT)
        finally:
            child.kill()
    assert child.returncode == 130, said
    assert "what has arrived is kept" in said
    listed = json.loads(lollms(tmp_path, hub, "ps", "--json").stdout)
    assert [(row["name"], row["status"]) for row in listed["downloads"]] == [(f"{REPO}/{FILE}", "paused")]
    left = places.part(REPO, FILE).stat().st_size
    hub.storage.frame_delay = 0.0

    done = lollms(tmp_path, hub, "pull", REPO)

    assert done.stdout == f"{REPO}/{FILE}\n", done.stderr
    assert hub.storage.received[-1].headers["range"] == f"bytes={left}-"


def test_progress_is_told_in_lines_where_there_is_no_terminal(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("maker/other-GGUF", {"o.Q8_0.gguf": content(2_000_000)})
    hub.storage.frame_delay = 0.02

    done = lollms(tmp_path, hub, "pull", "maker/other-GGUF")

    assert done.stdout == "maker/other-GGUF/o.Q8_0.gguf\n"
    assert "% of 1.9 MiB" in done.stderr


async def test_a_damaged_list_of_downloads_is_told_and_keeps_nobody_from_working(
    hub: FakeHub, make_downloads: Make, tmp_path: Path
) -> None:
    places = Downloads(tmp_path / "gguf", hub.url).places
    places.own.mkdir(parents=True)
    places.records.write_bytes(b"this is no database" * 1000)

    with pytest.raises(Unavailable, match="cannot be used"):
        await make_downloads()

    places.records.unlink()
    await (await make_downloads()).ensure(Wanted(REPO, FILE))


async def test_the_queue_has_an_end(
    hub: FakeHub, make_downloads: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lollms_kernel.downloads.service.MAX_QUEUED", 1)
    hub.storage.frame_delay = 0.05
    downloads = await make_downloads()
    await downloads.enqueue(REPO, FILE)

    with pytest.raises(QueueFull):
        await downloads.enqueue(REPO, "README.md")


async def test_a_mistake_ends_in_error_and_not_in_an_endless_loop(
    hub: FakeHub, make_downloads: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistaken(_transfer: object) -> None:
        raise TypeError("unheard of")

    monkeypatch.setattr("lollms_kernel.downloads.transfer.Transfer.run", mistaken)
    downloads = await make_downloads()
    await downloads.enqueue(REPO, FILE)

    assert "unheard of" in (await until(downloads, "error")).error
