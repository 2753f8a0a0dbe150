"""A download from the hub to its place: what arrives, what goes on, and what never becomes a model."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lollms_kernel.downloads import Download, Downloads, Wanted, parse_wanted
from lollms_kernel.errors import Cancelled, DownloadFailed, Forbidden, InvalidRequest, NotFound, Unavailable
from lollms_kernel.testing.fakes import dropped, refusal, stalled
from lollms_kernel.testing.fakes.faults import Fault
from lollms_kernel.testing.fakes.hub import FRAME, FakeHub

from .conftest import FILE, MIB, REPO, content

Make = Callable[..., Awaitable[Downloads]]
LIMIT = 30.0

WANTED = Wanted(REPO, FILE)


async def until(downloads: Downloads, *statuses: str, file: str = FILE) -> Download:
    """The download as soon as it has one of these states."""
    async with asyncio.timeout(LIMIT):
        while True:
            found = await downloads.get(REPO, file)
            if found is not None and found.status in statuses:
                return found
            await downloads.changes()


def parts(downloads: Downloads) -> list[Path]:
    return list(downloads.places.own.glob("*.part"))


def ranges(hub: FakeHub) -> list[str | None]:
    return [request.headers.get("range") for request in hub.storage.received]


# --- the straight line --------------------------------------------------------------------------------------


async def test_a_model_arrives_verified_under_its_name(hub: FakeHub, make_downloads: Make) -> None:
    downloads = await make_downloads()

    pulled = await downloads.ensure(parse_wanted(REPO))

    assert pulled.name == f"{REPO}/{FILE}"
    assert pulled.paths[0].read_bytes() == hub.repos[REPO].files[FILE]
    row = await downloads.get(REPO, FILE)
    assert row is not None
    assert (row.status, row.progress, row.downloaded) == ("complete", 100.0, row.total)
    assert row.revision == hub.repos[REPO].head, "it is fetched at the commit that the checksum belongs to"
    assert parts(downloads) == []


async def test_a_small_file_is_verified_by_gits_checksum(hub: FakeHub, make_downloads: Make) -> None:
    downloads = await make_downloads()

    pulled = await downloads.ensure(Wanted(REPO, "README.md"))

    assert pulled.paths[0].read_bytes() == b"# Alpha\n"
    assert hub.storage.received == []


async def test_what_is_here_is_not_fetched_again_even_offline(hub: FakeHub, make_downloads: Make) -> None:
    downloads = await make_downloads()
    first = await downloads.ensure(parse_wanted(REPO))
    hub.received.clear()

    for name in (REPO, f"{REPO}:q4_k_m", f"{REPO}/{FILE}", REPO.upper()):
        assert await downloads.ensure(parse_wanted(name)) == first

    assert hub.received == []


async def test_several_parts_of_one_model_come_together(hub: FakeHub, make_downloads: Make) -> None:
    names = [f"big-Q8_0-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    hub.add("maker/big-GGUF", {name: content(1000, seed) for seed, name in enumerate(names)})
    downloads = await make_downloads()

    pulled = await downloads.ensure(parse_wanted("maker/big-GGUF:Q8_0"))

    assert [path.name for path in pulled.paths] == names
    assert pulled.name == f"maker/big-GGUF/{names[0]}"


async def test_an_empty_file_is_a_file(hub: FakeHub, make_downloads: Make) -> None:
    hub.add("maker/empty-GGUF", {"none.Q4_0.gguf": b""})

    pulled = await (await make_downloads()).ensure(parse_wanted("maker/empty-GGUF"))

    assert pulled.paths[0].read_bytes() == b""


async def test_a_file_that_lies_there_already_is_taken_over_if_it_is_the_right_one(
    hub: FakeHub, make_downloads: Make
) -> None:
    downloads = await make_downloads()
    target = downloads.path(REPO, FILE)
    target.parent.mkdir(parents=True)
    target.write_bytes(hub.repos[REPO].files[FILE])

    await downloads.ensure(WANTED)

    assert hub.storage.received == []


async def test_a_file_of_somebody_else_is_never_replaced(hub: FakeHub, make_downloads: Make) -> None:
    downloads = await make_downloads()
    target = downloads.path(REPO, FILE)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"mine")

    with pytest.raises(DownloadFailed, match="exists and is not the file"):
        await downloads.ensure(WANTED)

    assert target.read_bytes() == b"mine"


# --- going on -----------------------------------------------------------------------------------------------


async def test_after_a_broken_connection_it_goes_on_from_the_same_byte(
    hub: FakeHub, make_downloads: Make
) -> None:
    hub.storage.faults.append(dropped(after=20))
    downloads = await make_downloads()

    pulled = await downloads.ensure(WANTED)

    first, second = hub.storage.received
    assert second.headers["range"] == f"bytes={20 * FRAME}-"
    assert second.headers["if-range"] == hub.storage.etag(
        hashlib.sha256(hub.repos[REPO].files[FILE]).hexdigest()
    )
    assert "range" not in first.headers
    assert pulled.paths[0].read_bytes() == hub.repos[REPO].files[FILE]


async def test_paused_and_resumed_it_goes_on(hub: FakeHub, make_downloads: Make) -> None:
    hub.storage.frame_delay = 0.02
    downloads = await make_downloads()
    await downloads.enqueue(REPO, FILE)
    while not (row := await until(downloads, "downloading")).downloaded:
        await downloads.changes()

    paused = await downloads.pause(REPO, FILE)
    (part,) = parts(downloads)
    kept = part.stat().st_size
    hub.storage.frame_delay = 0.0
    await downloads.resume(REPO, FILE)
    done = await until(downloads, "complete")

    assert paused.status == "paused"
    assert 0 < row.downloaded <= kept < done.total
    assert hub.storage.received[-1].headers["range"] == f"bytes={kept}-"


async def test_a_storage_that_ignores_ranges_begins_anew(hub: FakeHub, make_downloads: Make) -> None:
    hub.storage.faults.append(dropped(after=20))
    hub.storage.ignores_range = True
    downloads = await make_downloads()

    pulled = await downloads.ensure(WANTED)

    assert pulled.paths[0].read_bytes() == hub.repos[REPO].files[FILE]


async def test_a_changed_etag_throws_away_what_is_here(hub: FakeHub, make_downloads: Make) -> None:
    hub.storage.faults.append(dropped(after=20))
    answers = iter(['"one"', '"two"', '"two"'])
    hub.storage.etag = lambda _checksum: next(answers, '"two"')
    downloads = await make_downloads()

    pulled = await downloads.ensure(WANTED)

    assert ranges(hub)[1] == f"bytes={20 * FRAME}-"
    assert hub.storage.received[1].headers["if-range"] == '"one"'
    assert pulled.paths[0].read_bytes() == hub.repos[REPO].files[FILE]


async def test_a_part_that_is_damaged_is_fetched_anew_once(hub: FakeHub, make_downloads: Make) -> None:
    first = await make_downloads()
    hub.storage.faults.append(stalled(after=20))
    await first.enqueue(REPO, FILE)
    while not (await until(first, "downloading")).downloaded:
        await first.changes()
    await first.pause(REPO, FILE)
    (part,) = parts(first)
    part.write_bytes(b"x" * part.stat().st_size)

    await first.resume(REPO, FILE)
    await until(first, "complete")

    assert first.path(REPO, FILE).read_bytes() == hub.repos[REPO].files[FILE]


async def test_a_file_that_is_whole_but_was_not_renamed_needs_no_byte(
    hub: FakeHub, make_downloads: Make
) -> None:
    downloads = await make_downloads(everything=False)
    part = downloads.places.part(REPO, FILE)
    part.parent.mkdir(parents=True)
    part.write_bytes(hub.repos[REPO].files[FILE])

    await downloads.ensure(WANTED)

    assert hub.storage.received == []


async def test_a_part_that_is_too_long_is_thrown_away(hub: FakeHub, make_downloads: Make) -> None:
    downloads = await make_downloads(everything=False)
    part = downloads.places.part(REPO, FILE)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 4 * MIB)

    pulled = await downloads.ensure(WANTED)

    assert pulled.paths[0].read_bytes() == hub.repos[REPO].files[FILE]
    assert ranges(hub) == [None]


# --- what never becomes a model -----------------------------------------------------------------------------


def flip(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize(
    ("mangle", "tells_length", "reason"),
    [
        (flip, True, "checksum is wrong"),
        (lambda body: body + b"more", True, "but sends one of"),
        (lambda body: body + b"more", False, "More bytes arrive"),
        (lambda body: body[:-1000], True, "but sends one of"),
        (lambda body: body[:-1000], False, "but sends only"),
        (lambda body: b"<html>Sign in to the network</html>", True, "but sends one of"),
    ],
    ids=["corrupted", "oversized", "oversized-chunked", "truncated", "truncated-chunked", "portal"],
)
async def test_a_wrong_body_ends_in_error_and_is_never_promoted(
    hub: FakeHub, make_downloads: Make, mangle: Callable[[bytes], bytes], tells_length: bool, reason: str
) -> None:
    hub.storage.mangle, hub.storage.tells_length = mangle, tells_length
    downloads = await make_downloads(retries=1)

    with pytest.raises(DownloadFailed, match=reason):
        await downloads.ensure(WANTED)

    row = await until(downloads, "error")
    assert reason in row.error
    assert not downloads.path(REPO, FILE).exists()


async def test_a_file_that_changed_on_the_hub_meanwhile_is_fetched_as_it_is_now(
    hub: FakeHub, make_downloads: Make
) -> None:
    downloads = await make_downloads(everything=False)
    await downloads.hub.model(REPO)
    repo = hub.repos[REPO]
    old = repo.head
    repo.files[FILE] = content(2 * MIB, seed=5)
    repo.commits[old] = repo.files  # its history was rewritten, as a squash does

    pulled = await downloads.ensure(WANTED)

    assert pulled.paths[0].read_bytes() == content(2 * MIB, seed=5)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "does not have"), (403, "refuses"), (401, "valid token"), (418, "HTTP 418")],
)
async def test_a_refusal_is_told_at_once(
    hub: FakeHub, make_downloads: Make, status: int, reason: str
) -> None:
    hub.storage.faults.append(refusal(status, path="/blobs"))
    downloads = await make_downloads()

    with pytest.raises(DownloadFailed, match=reason):
        await downloads.ensure(WANTED)

    assert len(hub.storage.received) == 1


@pytest.mark.parametrize("status", [500, 503, 429, 408])
async def test_what_passes_is_tried_again(hub: FakeHub, make_downloads: Make, status: int) -> None:
    hub.storage.faults += [refusal(status, retry_after="1"), refusal(status)]

    await (await make_downloads()).ensure(WANTED)

    assert len(hub.storage.received) == 3


async def test_what_does_not_pass_ends_in_error(hub: FakeHub, make_downloads: Make) -> None:
    hub.storage.faults += [refusal(503) for _ in range(4)]

    with pytest.raises(DownloadFailed, match="HTTP 503"):
        await (await make_downloads(retries=3)).ensure(WANTED)

    assert len(hub.storage.received) == 4


async def test_a_hub_that_asks_for_an_hour_is_not_waited_for(hub: FakeHub, make_downloads: Make) -> None:
    hub.storage.faults.append(refusal(429, retry_after="3600"))

    with pytest.raises(DownloadFailed, match="too many requests"):
        await (await make_downloads()).ensure(WANTED)

    assert len(hub.storage.received) == 1


async def test_silence_is_given_up(hub: FakeHub, make_downloads: Make) -> None:
    hub.storage.faults.append(stalled(after=3))

    await (await make_downloads(stall_timeout=0.3)).ensure(WANTED)

    assert ranges(hub) == [None, f"bytes={3 * FRAME}-"]


async def test_a_disk_that_is_too_small_is_told_before_a_byte_is_fetched(
    hub: FakeHub, make_downloads: Make
) -> None:
    hub.repos[REPO].sizes[FILE] = 1 << 60

    with pytest.raises(DownloadFailed, match="not enough room"):
        await (await make_downloads()).ensure(WANTED)

    assert hub.storage.received == []


async def test_a_disk_that_becomes_full_ends_in_error_and_keeps_nothing_wrong(
    hub: FakeHub, make_downloads: Make
) -> None:
    downloads = await make_downloads(everything=False)
    part = downloads.places.part(REPO, FILE)
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(DownloadFailed, match="is full"):
        await downloads.ensure(WANTED)

    assert not downloads.path(REPO, FILE).exists()


async def test_a_folder_that_cannot_be_written_ends_in_error(hub: FakeHub, make_downloads: Make) -> None:
    downloads = await make_downloads(everything=False)
    (downloads.places.folder / "maker").parent.mkdir(parents=True, exist_ok=True)
    (downloads.places.folder / "maker").write_text("a file where a folder should be")

    with pytest.raises(DownloadFailed, match="cannot be written"):
        await downloads.ensure(WANTED)


# --- token and redirects ------------------------------------------------------------------------------------


async def test_the_token_goes_to_the_hub_and_to_nobody_else(hub: FakeHub, make_downloads: Make) -> None:
    hub.token = "hf_secret"
    hub.repos[REPO].gated = True
    downloads = await make_downloads(token="hf_secret")

    await downloads.ensure(WANTED)

    assert {request.headers.get("authorization") for request in hub.received} == {"Bearer hf_secret"}
    assert [request.headers.get("authorization") for request in hub.storage.received] == [None]
    assert "hf_secret" not in repr(await downloads.all())


async def test_without_access_it_says_how_to_get_it(hub: FakeHub, make_downloads: Make) -> None:
    hub.repos[REPO].gated = True

    with pytest.raises(DownloadFailed, match="wants to be asked first"):
        await (await make_downloads()).ensure(WANTED)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("ftp://127.0.0.1/file", "address that is none"),
        ("file:///etc/passwd", "address that is none"),
        ("", "without saying where"),
        ("http://[::1", "connection to the hub broke"),
        ("/maker/alpha-GGUF/resolve/main/alpha.Q4_K_M.gguf", "more than 5 times"),
    ],
)
async def test_redirects_that_lead_nowhere_are_refused(
    hub: FakeHub, make_downloads: Make, location: str, reason: str
) -> None:
    hub.location = lambda _checksum: location

    with pytest.raises(DownloadFailed, match=reason):
        await (await make_downloads()).ensure(WANTED)


async def test_a_redirect_to_an_unencrypted_place_is_refused() -> None:
    from lollms_kernel.downloads.fetching import _next

    with pytest.raises(DownloadFailed, match="from https to http"):
        _next("https://hub.example/a", "http://mirror.example/a")
    assert _next("https://hub.example/a", "//mirror.example/a") == "https://mirror.example/a"


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../up/file.gguf",
        "a/../../b.gguf",
        "/etc/passwd",
        "a//b.gguf",
        ".hidden.gguf",
        "a\\b.gguf",
        "x\0.gguf",
        "c:d.gguf",
    ],
)
async def test_a_hub_cannot_write_outside_of_the_folder(
    hub: FakeHub, make_downloads: Make, name: str
) -> None:
    hub.add("maker/evil-GGUF", {name: b"evil"})
    downloads = await make_downloads()

    with pytest.raises(InvalidRequest):
        await downloads.enqueue("maker/evil-GGUF", name)

    assert await downloads.all() == []


@pytest.mark.parametrize(
    "name", ["maker", "maker/..", "../maker", "a/b/c/../d", "", "maker/re po", "a/b:Q4/x", "a/b:Q 4"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_wanted(name)


def test_names_are_understood_as_people_write_them() -> None:
    assert parse_wanted("a/b") == Wanted("a/b")
    assert parse_wanted("hf.co/a/b:q4_k_m") == Wanted("a/b", None, "Q4_K_M")
    assert parse_wanted("a/b/sub/c.gguf") == Wanted("a/b", "sub/c.gguf")
    assert parse_wanted("https://huggingface.co/a/b/resolve/main/c.gguf") == Wanted("a/b", "c.gguf")


async def test_what_the_hub_lacks_is_told_with_what_it_has(hub: FakeHub, make_downloads: Make) -> None:
    downloads = await make_downloads()

    with pytest.raises(NotFound, match="no 'maker/alpha-GGUF:Q8_0'") as caught:
        await downloads.ensure(parse_wanted(f"{REPO}:Q8_0"))
    assert caught.value.hint == "Its quantizations: Q4_K_M."
    with pytest.raises(NotFound):
        await downloads.ensure(parse_wanted("maker/nothing-GGUF"))
    with pytest.raises(NotFound):
        await downloads.enqueue(REPO, "other.gguf")


async def test_a_hub_that_is_not_there_is_told(hub: FakeHub, tmp_path: Path) -> None:
    async with Downloads(tmp_path, "http://127.0.0.1:9") as downloads:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9 cannot be reached"):
            await downloads.ensure(WANTED)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"id": 7}', b"\xff"])
async def test_an_answer_of_nonsense_is_told(hub: FakeHub, make_downloads: Make, body: bytes) -> None:
    hub.faults.append(
        Fault(status=200, body=body, path="/api/models", headers={"content-type": "application/json"})
    )

    with pytest.raises((DownloadFailed, NotFound)):
        await (await make_downloads()).ensure(WANTED)


async def test_a_private_repository_needs_a_token(hub: FakeHub, make_downloads: Make) -> None:
    hub.faults.append(refusal(403, path="/api/models", x_error_code="GatedRepo"))

    with pytest.raises(Forbidden, match="wants to be asked first"):
        await (await make_downloads()).ensure(WANTED)


# --- the queue ----------------------------------------------------------------------------------------------


async def test_fifty_are_queued_and_a_few_run_at_once(hub: FakeHub, make_downloads: Make) -> None:
    names = [f"m{number}.Q4_0.gguf" for number in range(50)]
    hub.add("maker/many-GGUF", {name: content(100_000, seed) for seed, name in enumerate(names)})
    downloads = await make_downloads(parallel=4)
    most = 0

    for name in names:
        _, fresh = await downloads.enqueue("maker/many-GGUF", name)
        assert fresh
    async with asyncio.timeout(60):
        rows = await downloads.all()
        while any(row.under_way for row in rows):
            most = max(most, sum(row.status == "downloading" for row in rows))
            await downloads.changes()
            rows = await downloads.all()

    assert {row.status for row in rows} == {"complete"}
    assert [row.file for row in rows] == names, "the oldest comes first"
    assert 1 <= most <= 4
    assert len(hub.requests_to("/api/models")) == 1, "the repository is asked for once"
    for seed, name in enumerate(names):
        assert downloads.path("maker/many-GGUF", name).read_bytes() == content(100_000, seed)


async def test_enqueued_twice_it_is_one_download(hub: FakeHub, make_downloads: Make) -> None:
    hub.storage.frame_delay = 0.01
    downloads = await make_downloads()

    _, first = await downloads.enqueue(REPO, FILE)
    _, second = await downloads.enqueue(REPO, FILE)
    await until(downloads, "complete")
    _, third = await downloads.enqueue(REPO, FILE)

    assert (first, second, third) == (True, False, False)


async def test_cancelled_it_stops_and_stays_until_it_is_asked_for_again(
    hub: FakeHub, make_downloads: Make
) -> None:
    hub.storage.frame_delay = 0.05
    downloads = await make_downloads()
    waiting = asyncio.create_task(downloads.ensure(WANTED))
    await until(downloads, "downloading")

    assert (await downloads.cancel(REPO, FILE)).status == "cancelled"

    with pytest.raises(Cancelled):
        await waiting
    assert not downloads._tasks
    created = (await until(downloads, "cancelled")).created
    hub.storage.frame_delay = 0.0
    await downloads.enqueue(REPO, FILE)
    assert (await until(downloads, "complete")).created == created


async def test_reset_takes_everything_away(hub: FakeHub, make_downloads: Make) -> None:
    hub.storage.frame_delay = 0.05
    downloads = await make_downloads()
    await downloads.enqueue(REPO, FILE)
    await until(downloads, "downloading")

    before = await downloads.reset(REPO, FILE)

    assert before.status == "downloading"
    assert await downloads.all() == []
    assert parts(downloads) == []
    hub.storage.frame_delay = 0.0
    await downloads.ensure(WANTED)
    await downloads.reset(REPO, FILE)
    assert not (downloads.places.folder / "maker").exists(), "empty folders go too"
    with pytest.raises(NotFound):
        await downloads.reset(REPO, FILE)


async def test_a_model_whose_file_was_deleted_is_fetched_again(hub: FakeHub, make_downloads: Make) -> None:
    downloads = await make_downloads()
    pulled = await downloads.ensure(WANTED)
    pulled.paths[0].unlink()

    assert await downloads.ensure(WANTED) == pulled

    assert pulled.paths[0].exists()


async def test_the_catalogue_is_kept_for_when_the_hub_is_away(hub: FakeHub, make_downloads: Make) -> None:
    downloads = await make_downloads()
    listed = await downloads.catalogue(10, fresh=0)
    hub.faults.append(refusal(403, path="/api/models"))

    assert await downloads.catalogue(10, fresh=0) == listed
    assert [model.id for model in listed] == [REPO]


async def test_nothing_is_written_before_somebody_wants_something(hub: FakeHub, make_downloads: Make) -> None:
    downloads = await make_downloads()

    assert await downloads.all() == []
    assert not downloads.places.folder.exists()


def test_a_removed_lock_file_is_not_needed(tmp_path: Path) -> None:
    """One file, one owner: the second opener gets nothing until the first has let go."""
    from lollms_kernel.downloads.part import Part, is_locked

    path = tmp_path / "x.part"
    first = Part.open(path)
    assert first is not None
    first.append(b"abc")
    assert Part.open(path) is None
    assert is_locked(path)
    first.close()
    second = Part.open(path)
    assert second is not None
    assert second.size == 3
    os.unlink(path)
    second.close()
    assert not is_locked(path)
