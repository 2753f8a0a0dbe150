"""The fake hub, through the library that real programs use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from lollms_kernel.testing.fakes.hub import FakeHub, git_sha1

REPO = "maker/alpha-GGUF"
BIG = bytes(range(256)) * 1000


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(token="right", page_size=2) as fake:
        fake.add(REPO, {"a.gguf": BIG, "config.json": b"{}"}, small=frozenset({"config.json"}))
        for number in range(4):
            fake.add(
                f"maker/m{number}-GGUF", {"m.gguf": b"m"}, modified=f"2024-06-0{number + 1}T00:00:00.000Z"
            )
        yield fake


def api(hub: FakeHub, token: str | bool = False) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


def test_the_tree_has_what_a_download_of_all_needs(hub: FakeHub) -> None:
    head = hub.repos[REPO].head
    for revision in ("main", head):
        listed = api(hub).list_repo_tree(REPO, revision=revision, recursive=True)
        big, small = [entry for entry in listed if isinstance(entry, RepoFile)]
        assert (big.path, big.size, small.lfs) == ("a.gguf", len(BIG), None)
        assert big.lfs is not None
        assert big.lfs.sha256 == hashlib.sha256(BIG).hexdigest()
        assert small.blob_id == git_sha1(b"{}")


def test_metadata_have_sizes_and_checksums(hub: FakeHub) -> None:
    info = api(hub).model_info(REPO, files_metadata=True)

    assert info.sha == hub.repos[REPO].head
    assert info.siblings is not None
    big, small = info.siblings
    assert big.lfs is not None
    assert (big.lfs.size, big.lfs.sha256) == (len(BIG), hashlib.sha256(BIG).hexdigest())
    assert (small.lfs, small.size, small.blob_id) == (None, 2, git_sha1(b"{}"))


def test_listings_come_in_pages_sorted_and_filtered(hub: FakeHub) -> None:
    found = [info.id for info in api(hub).list_models(filter="gguf", sort="last_modified", full=True)]

    assert found == ["maker/m3-GGUF", "maker/m2-GGUF", "maker/m1-GGUF", "maker/m0-GGUF", REPO]
    assert len(hub.requests_to("/api/models")) == 3
    assert [info.id for info in api(hub).list_models(search="alpha")] == [REPO]
    assert list(api(hub).list_models(filter="onnx")) == []


def test_files_come_whole_from_the_storage_and_from_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    for name, content in (("a.gguf", BIG), ("config.json", b"{}")):
        path = hf_hub_download(REPO, name, endpoint=hub.url, cache_dir=tmp_path, token=False)
        assert Path(path).read_bytes() == content
    assert [request.method for request in hub.storage.received] == ["GET"]


def test_what_is_missing_or_closed_raises_the_librarys_errors(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api(hub).model_info("maker/none")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "none.gguf", endpoint=hub.url, cache_dir=tmp_path, token=False)
    hub.repos[REPO].gated = True
    with pytest.raises(GatedRepoError):
        hf_hub_download(REPO, "a.gguf", endpoint=hub.url, cache_dir=tmp_path, token=False)
    assert hf_hub_download(REPO, "a.gguf", endpoint=hub.url, cache_dir=tmp_path, token="right")


def test_ranges_hold_only_for_the_same_file(hub: FakeHub) -> None:
    first = httpx.get(f"{hub.url}/{REPO}/resolve/main/a.gguf", follow_redirects=True)
    url, etag = str(first.url), first.headers["etag"]

    part = httpx.get(url, headers={"range": "bytes=1000-", "if-range": etag})
    assert (part.status_code, part.content) == (206, BIG[1000:])
    assert part.headers["content-range"] == f"bytes 1000-{len(BIG) - 1}/{len(BIG)}"
    other = httpx.get(url, headers={"range": "bytes=1000-", "if-range": '"other"'})
    assert (other.status_code, other.content) == (200, BIG)
    after = httpx.get(url, headers={"range": f"bytes={len(BIG)}-"})
    assert (after.status_code, after.headers["content-range"]) == (416, f"bytes */{len(BIG)}")


def test_old_commits_keep_their_files(hub: FakeHub) -> None:
    repo = hub.repos[REPO]
    old = repo.head
    repo.files["config.json"] = b'{"new": 1}'

    def content(revision: str) -> bytes:
        return httpx.get(f"{hub.url}/{REPO}/resolve/{revision}/config.json").content

    assert (content(old), content("main"), content(repo.head)) == (b"{}", b'{"new": 1}', b'{"new": 1}')
    assert httpx.get(f"{hub.url}/{REPO}/resolve/{'0' * 40}/config.json").status_code == 404
